"""Self-contained HTML pages from the templates of this folder, and how figures are written in them.

A page asks the network for nothing and runs no script but its own: its policy forbids the rest.
Names of classes, captions and file names are of anybody's making. They reach a page through
jinja2's autoescape only.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
from typing import Any

import jinja2
from markupsafe import Markup

from wit_train.evaluate.results import Score

NO_BREAK = "\N{NO-BREAK SPACE}"


def render(template_name: str, **values: Any) -> str:
    """Return a page. The same values give the same text.

    Args:
        template_name: of a file in ``template`` that fills the blocks of ``base.html.j2``.
        values: what the template speaks of. All text in them is escaped.
    """
    script = _part("page.js")
    return (
        _environment()
        .get_template(template_name)
        .render(
            style=Markup(_part("page.css")),  # noqa: S704 - a file of this package
            script=Markup(script),  # noqa: S704 - a file of this package
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **values,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=lambda count: f"{count:,}",
        quantity=quantity,
        share=share,
        percent=percent,
        interval=interval,
        ordinal=ordinal,
        words=lambda name: name.replace("_", " "),
    )
    return environment


def _part(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("template", name).read_text("utf-8")


def quantity(count: int, unit: str) -> str:
    """Return a count with its unit, singular where it is one: ``1 class``, ``2,000 pictures``."""
    return f"{count:,} {_singular(unit) if count == 1 else unit}"


def _singular(unit: str) -> str:
    return unit.removesuffix("es" if unit.endswith(("ches", "sses")) else "s")


def share(part: float, whole: float) -> str:
    """Return a part of a whole in per cent."""
    return percent(part / whole) if whole else "n/a"


def percent(value: float) -> str:
    """Return a value of [0, 1] in per cent, exact at the ends: only all of it is ``100 %``."""
    percents = 100 * value
    if 0 < percents < 0.1:
        said = "< 0.1"
    elif 99.9 < percents < 100:
        said = "> 99.9"
    else:
        said = f"{percents:.0f}" if percents in {0, 100} else f"{percents:.1f}"
    return f"{said} %".replace(" ", NO_BREAK)


def interval(score: Score) -> str:
    """Return the confidence interval in per cent: ``61.2 to 65.5 %``; empty where there is none."""
    if score.low is None or score.high is None:
        return ""
    return f"{100 * score.low:.1f} to {100 * score.high:.1f}{NO_BREAK}%"


def ordinal(rank: int) -> str:
    """Return the place of a rank that counts from 0: ``1st``, ``2nd``, ``1,011th``."""
    place = rank + 1
    teen = place % 100 in {11, 12, 13}
    return f"{place:,}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(place % 10, 'th')}"


def signed(number: float, form: str = ".3f") -> str:
    """Return a number whose sign, if it is negative, is a minus and no hyphen."""
    return format(number, form).replace("-", "\N{MINUS SIGN}")
