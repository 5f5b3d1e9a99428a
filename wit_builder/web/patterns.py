"""URL patterns, in which ``*`` stands for anything: very many, asked all at once.

Each pattern is kept under a few of its own literal characters; only patterns whose characters stand
in a URL are tried on it. Matching is by ``str.find``, so no pattern can make it slow.
"""

from __future__ import annotations

from collections.abc import Sequence

MIN_LITERAL = 4
"""Characters in a row without ``*`` that a pattern must have."""
_SIZES = (8, MIN_LITERAL)  # of runs that patterns are kept under; long ones are rare in URLs


class Patterns:
    """URL patterns, each with a number: 350 bytes a pattern, 10 us a question to 100,000.

    Args:
        patterns: whole URLs in normal form with ``*`` in them, or with ``*`` at their start.
        numbers: one for each, ascending.
    """

    def __init__(self, patterns: Sequence[str], numbers: Sequence[int]) -> None:
        # size of runs -> run of characters -> patterns
        self._kept: dict[int, dict[str, list[tuple[int, str]]]] = {}
        for number, pattern in zip(numbers, patterns, strict=True):  # 7 us each
            runs = _runs(pattern)
            kept = self._kept.setdefault(len(runs[-1]), {})
            # the rarest so far; the last of equals, for patterns differ towards their ends
            rarest = min(reversed(runs), key=lambda run: len(kept.get(run, ())))
            kept.setdefault(rarest, []).append((number, pattern))

    def __len__(self) -> int:
        return sum(len(some) for kept in self._kept.values() for some in kept.values())

    def find(self, url: str) -> int | None:
        """Return the lowest number of a pattern that the whole URL matches; None if none does."""
        near: list[tuple[int, str]] = []
        for size, kept in self._kept.items():
            for at in range(len(url) - size + 1):  # 0.1 us each
                if found := kept.get(url[at : at + size]):
                    near += found
        return min((number for number, pattern in near if matches(pattern, url)), default=None)


def fault(pattern: str) -> str:
    """Return what is wrong with a pattern, in a few words; empty if nothing is."""
    if not (pattern.isascii() and pattern.isprintable()) or " " in pattern:
        return "a pattern with characters that URLs escape"
    if not pattern.startswith(("*", "http://", "https://")):
        return "a pattern that no URL can match, for it begins with neither http(s):// nor *"
    if max(map(len, pattern.split("*"))) < MIN_LITERAL:
        return f"a pattern without {MIN_LITERAL} characters in a row"
    return ""


def _runs(pattern: str) -> list[str]:
    """Return runs of characters that stand in every URL that matches, the longest kind it has."""
    pieces = pattern.split("*")
    size = next(size for size in _SIZES if max(map(len, pieces)) >= size)
    return [piece[i : i + size] for piece in pieces for i in range(len(piece) - size + 1)]


def matches(pattern: str, url: str) -> bool:
    """Return whether all of a URL is the pattern with something, or nothing, for each ``*``."""
    first, *middle, last = pattern.split("*")
    at, end = len(first), len(url) - len(last)
    if end < at or not (url.startswith(first) and url.endswith(last)):
        return False
    for piece in middle:
        found = url.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
