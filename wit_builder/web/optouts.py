"""Opt-outs: the one table of signals, and the one function that reads them.

Signals come as ``X-Robots-Tag`` headers and robots metas (``noai`` and ``noimageai`` as DeviantArt
introduced them; ``noindex``, ``noimageindex`` and ``none`` as search engines define them), as W3C
TDMRep's ``tdm-reservation``, and as ``Content-Usage`` of the IETF AIPREF drafts. The most
restrictive wins: one signal is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from wit_builder.web.agent import TOKEN

DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Words of ``X-Robots-Tag`` and of robots metas that opt a page or picture out."""
TDM_RESERVATION = "tdm-reservation"
TRAIN_AI_NO = "train-ai=n"
NOFOLLOW = frozenset({"nofollow", "none"})
"""Words of the same places that ask not to follow a page's links."""
META_NAMES = ("robots", TOKEN, TDM_RESERVATION)
"""Names of the ``<meta>`` elements that are read, in lower case."""

_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives with a value after a colon; anything else before a colon is an agent's name."""
# Whatever stands around a word (quotes, NUL, bytes of another charset) does not hide it.
_WORD = re.compile(
    r"(?:([a-z*][\w*.-]{0,63})(?:/[\w.-]{0,63})?\s*:[^\w,;]*)?(\w+(?:-\w+)*)", re.ASCII
)
_NAME = re.compile(r"\w+(?:-\w+)*", re.ASCII)

Pairs = Iterable[tuple[str, str]]


def opt_outs(headers: Pairs = (), metas: Pairs = ()) -> list[str]:
    """Return the opt-out signals that address us, sorted, each once; empty if there are none.

    Args:
        headers: (name, value) of every response header line; names in any case.
        metas: (name, content) of a page's ``<meta>`` elements.

    Returns:
        words of ``DIRECTIVES``, ``"tdm-reservation"`` and ``"train-ai=n"``.
    """
    found: set[str] = set()
    for name, value in headers:
        match name.lower():
            case "x-robots-tag":
                found |= _directives(value)
            case "tdm-reservation":
                found |= _reservation(value)
            case "content-usage":
                found |= {TRAIN_AI_NO} if forbids_training(value) else set()
    for name, content in metas:
        names = set(_NAME.findall(name.lower()))  # some pages name several at once
        if names & {"robots", TOKEN}:
            found |= _directives(content)
        if TDM_RESERVATION in names:
            found |= _reservation(content)
    return sorted(found)


def forbids_following(headers: Pairs = (), metas: Pairs = ()) -> bool:
    """Return whether a page asks us not to follow its links; arguments as of ``opt_outs``."""
    lines = [value for name, value in headers if name.lower() == "x-robots-tag"]
    for name, content in metas:
        if {"robots", TOKEN} & set(_NAME.findall(name.lower())):
            lines.append(content)
    return any(_directives(line, NOFOLLOW) for line in lines)


def forbids_training(content_usage: str) -> bool:
    """Return whether a ``Content-Usage`` value, a structured dictionary, has ``train-ai=n``."""
    items = (item.partition(";")[0] for item in content_usage.lower().split(","))
    return any("".join(item.split()) == TRAIN_AI_NO for item in items)


def _reservation(value: str) -> set[str]:
    """Return the signal where an item of a value is 1, whatever its parameters and quotes."""
    items = (item.partition(";")[0] for item in value.split(","))
    reserved = any(re.sub(r"\W+", "", item, flags=re.ASCII) == "1" for item in items)
    return {TDM_RESERVATION} if reserved else set()


def _directives(line: str, words: frozenset[str] = DIRECTIVES) -> set[str]:
    """Return which words of one line hold for us: ``agent:`` rules what follows it."""
    found: set[str] = set()
    ours = True
    for head, word in _WORD.findall(line.lower()):
        if head in _VALUED:
            continue
        if head:
            ours = head in {"*", TOKEN}
        if ours and word in words:
            found.add(word)
    return found
