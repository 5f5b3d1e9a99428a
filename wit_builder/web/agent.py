"""Who we say we are: one product token for robots.txt and opt-outs, one honest user agent."""

from __future__ import annotations

import wit_builder
from wit_builder.errors import RecipeError

TOKEN = "wit-builder"  # noqa: S105 - a product token (RFC 9309, section 2.2.1), not a secret
"""What a robots.txt group, an ``X-Robots-Tag`` prefix or a page's meta names to address us."""


def user_agent(contact: str, *, loopback_only: bool) -> str:
    """Return the ``User-Agent`` header: product, version and where to complain.

    Args:
        contact: URL or e-mail address of whoever runs the crawl.
        loopback_only: nothing but mapped loopback hosts can be asked, so nobody needs a contact.

    Raises:
        RecipeError: the live web is to be asked without a contact.
    """
    product = f"{TOKEN}/{wit_builder.__version__}"
    if contact:
        return f"{product} (+{contact.strip()})"
    if not loopback_only:
        raise RecipeError(
            "the live web must not be asked anonymously",
            where="fetch.contact",
            fix="set it to a URL or e-mail address where a webmaster reaches you",
        )
    return product
