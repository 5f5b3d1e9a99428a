"""Self-contained HTML pages, of one style: no network, no framework, readable without script.

Names, captions and queries are of anybody's making. They reach a page through jinja2's autoescape
only, and a page's policy runs no script but its own: that is what ``script_hash`` is for.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from markupsafe import Markup

NO_BREAK = "\N{NO-BREAK SPACE}"

Filters = Mapping[str, Callable[..., str]]


def render(package: str, template: str, filters: Filters, **values: Any) -> str:
    """Return a page. The same values give the same text.

    Args:
        package: whose folder ``template`` has the templates, ``page.css`` and ``page.js``.
        template: a file there. It is given ``style``, the style of all pages with the package's own
            after it, ``script``, and ``script_hash``, its SHA-256 in base64.
        filters: what the template writes figures with, by name.
        values: what the template speaks of. All text in them is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _file(package, name)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    house = importlib.resources.files(__name__).joinpath("house.css").read_text("utf-8")
    script = _file(package, "page.js")
    return environment.get_template(template).render(
        style=Markup(house + _file(package, "page.css")),  # noqa: S704 - files of these packages
        script=Markup(script),  # noqa: S704 - a file of the package
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def _file(package: str, name: str) -> str:
    return importlib.resources.files(package).joinpath("template", name).read_text("utf-8")
