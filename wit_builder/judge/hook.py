"""Filters: what packages offer in the entry-point group ``wit.filters``, held to the contract.

A filter imports nothing of this package: pictures are numpy arrays, texts strings, rows an Arrow
table. The protocols below say what it is; ``docs/filters.md`` shows one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.errors import FilterError, RecipeError, WitError
from wit_builder.recipe import digest
from wit_builder.sections import FilterSection
from wit_builder.tables import IMAGES

GROUP = "wit.filters"

Pixels = npt.NDArray[np.uint8]
"""A picture: [height, width, 3], red green blue."""
Scores = npt.NDArray[np.float32]


class Judge(Protocol):
    """What judges pictures; may be asked in any process, for batches of any size."""

    def __call__(
        self, images: list[Pixels], texts: list[str], rows: pa.Table, /
    ) -> tuple[dict[str, Sequence[float]], Sequence[str | None]]:
        """Return scores and objections, one for each picture.

        The names of the scores are the same each time. The first time there are no pictures, so
        that the names are known.

        Args:
            images: pictures as packed, of different sizes.
            texts: of the same pairs.
            rows: of the same pairs (``tables.IMAGES``).

        Returns:
            Finite scores by name; and per pair why it must be dropped, in a few words, or None.
        """


class Factory(Protocol):
    """What an entry point names: makes a judge of the recipe's ``options``."""

    def __call__(self, **options: Any) -> Judge:
        """Return a judge; may take its time, and raise if the options make none."""


@dataclass(frozen=True)
class Verdict:
    """What a filter says of a batch: scores by column, float32 [N], and N objections."""

    scores: dict[str, Scores]
    objections: list[str | None]


class Filter:
    """A filter of a recipe, ready to judge.

    Raises:
        RecipeError: there is no such filter or score, or it cannot be made with these options.
        FilterError: it does not do as agreed.
    """

    def __init__(self, section: FilterSection) -> None:
        self._section = section
        with _blamed(section.name, "cannot be loaded", RecipeError, "reinstall its package"):
            factory = _entry(section.name).load()
        where, fix = "filters.options", "see the filter's documentation"
        with _blamed(section.name, "cannot be made", RecipeError, fix, where):
            self._judge: Judge = factory(**section.options)
        self._names = list(self._ask([], [], IMAGES.empty_table())[0])
        self._limits = [
            (name, limit, symbol)
            for limits, symbol in ((section.min, "<"), (section.max, ">"))
            for name, limit in limits.items()
        ]
        for name in [name for name, _, _ in self._limits if name not in self._names]:
            raise RecipeError(
                f"the filter {section.name} gives no score {name!r}",
                where="filters.min, filters.max",
                fix=f"its scores: {', '.join(self._names) or 'none'}",
            )

    @property
    def columns(self) -> list[str]:
        """Names of the columns of its scores."""
        return [self._column(name) for name in self._names]

    def _column(self, score: str) -> str:
        return f"{self._section.name}.{score}"

    def judge(self, images: list[Pixels], texts: list[str], rows: pa.Table) -> Verdict:
        """Return scores and objections of some pictures; a score beyond its limit is an objection.

        Raises:
            FilterError: the filter fails, or does not do as agreed.
        """
        scores, reasons = self._ask(images, texts, rows)
        if list(scores) != self._names:
            raise self._fault(f"gives the scores {list(scores)}, and before {self._names}")
        columns = {self._column(name): values for name, values in scores.items()}
        objections = [None if words is None else self._said(words) for words in reasons]
        for name, limit, symbol in self._limits:
            column = self._column(name)
            values, bound = columns[column], np.float32(limit)
            beyond = values < bound if symbol == "<" else values > bound
            for at in np.flatnonzero(beyond):
                objections[at] = objections[at] or f"{column} {values[at]!s} {symbol} {bound!s}"
        return Verdict(columns, objections)

    def _said(self, words: str) -> str:
        return f"{self._section.name}: {' '.join(words.split())[:200]}"

    def _ask(
        self, images: list[Pixels], texts: list[str], rows: pa.Table
    ) -> tuple[dict[str, Scores], list[str | None]]:
        """Return what the filter says, in the form that was agreed."""
        with _blamed(self._section.name, f"fails on {len(images)} pictures", FilterError):
            said = self._judge(images, texts, rows)
        if not (isinstance(said, tuple) and len(said) == 2 and isinstance(said[0], dict)):
            raise self._fault("returns no pair of scores by name and objections")
        scores = {name: self._checked(name, v, len(images)) for name, v in said[0].items()}
        return scores, self._checked_objections(said[1], len(images))

    def _checked(self, name: Any, values: Any, count: int) -> Scores:
        if not isinstance(name, str):
            raise self._fault(f"names a score {name!r}, which is no string")
        with _blamed(self._section.name, f"gives no numbers as {name}", FilterError):
            found = np.asarray(values, np.float32)
        if found.shape != (count,):
            raise self._fault(f"gives {name} of shape {found.shape} for {count} pictures")
        if not np.isfinite(found).all():
            odd = found[~np.isfinite(found)][0]
            raise self._fault(f"gives {name} = {odd}, which is no score")
        return found

    def _checked_objections(self, reasons: Any, count: int) -> list[str | None]:
        if not isinstance(reasons, list | tuple) or len(reasons) != count:
            shown = len(reasons) if isinstance(reasons, list | tuple) else type(reasons).__name__
            raise self._fault(f"gives as objections {shown} for {count} pictures")
        for words in reasons:
            if not isinstance(words, str | None):
                raise self._fault(f"gives as objection {words!r:.80}, neither words nor None")
        return list(reasons)

    def _fault(self, what: str) -> FilterError:
        return FilterError(f"the filter {self._section.name} {what}", fix=_MEND)


_MEND = "mend it as docs/filters.md has it, or take it out of the recipe"


@contextmanager
def _blamed(
    name: str, doing: str, kind: type[WitError], fix: str = _MEND, where: str = ""
) -> Iterator[None]:
    """Turn whatever foreign code raises into one error that names the filter."""
    try:
        yield
    except WitError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        words = f"the filter {name} {doing}: {type(error).__name__}: {text}"
        raise kind(words, where=where, fix=fix) from error


def _entry(name: str) -> EntryPoint:
    """Return the entry point of a filter.

    Raises:
        RecipeError: no package offers it, or more than one.
    """
    known = entry_points(group=GROUP)
    found = {(entry.value, _package(entry)): entry for entry in known if entry.name == name}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        packages = ", ".join(sorted(package for _, package in found))
        fix = "uninstall all but one"
        raise RecipeError(f"{len(found)} filters are called {name!r}", where=packages, fix=fix)
    names = sorted({entry.name for entry in known})
    close = difflib.get_close_matches(name, names, 1)
    fix = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
    raise RecipeError(f"no filter is called {name!r}", where="filters.name", fix=fix)


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""


def settings(sections: Sequence[FilterSection]) -> list[Any]:
    """Return what a stage with these filters depends on: sections, and versions of packages.

    Raises:
        RecipeError: a filter is not there, or is there twice.
    """
    names = [section.name for section in sections]
    for name in sorted({name for name in names if names.count(name) > 1}):
        fix = "give one of them another entry point: its scores' columns bear its name"
        raise RecipeError(f"two filters are called {name!r}", where="filters", fix=fix)
    entries = [_entry(name) for name in names]
    return [[s, e.value, _package(e)] for s, e in zip(sections, entries, strict=True)]


def load(sections: Sequence[FilterSection]) -> list[Filter]:
    """Return the filters of a recipe; the last that were loaded are kept for the process.

    Raises:
        RecipeError: there is no such filter or score, or it cannot be made with its options.
        FilterError: one does not do as agreed.
    """
    key = digest(settings(sections))
    if key not in _last:
        _last.clear()  # before the next are made: they may need the memory
        _last[key] = [Filter(section) for section in sections]
    return _last[key]


_last: dict[str, list[Filter]] = {}
