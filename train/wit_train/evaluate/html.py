"""Pages from the templates of this folder, and how figures are written in them."""

from __future__ import annotations

from typing import Any

from wit_builder import pages
from wit_builder.pages import NO_BREAK
from wit_train.evaluate.results import Score


def render(template_name: str, **values: Any) -> str:
    """Return a page. The same values give the same text.

    Args:
        template_name: of a file in ``template`` that fills the blocks of ``base.html.j2``.
        values: what the template speaks of. All text in them is escaped.
    """
    return pages.render("wit_train.evaluate", template_name, _FILTERS, **values)


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


_FILTERS: pages.Filters = {
    "number": lambda count: f"{count:,}",
    "quantity": quantity,
    "share": share,
    "percent": percent,
    "interval": interval,
    "ordinal": ordinal,
    "words": lambda name: name.replace("_", " "),
}
