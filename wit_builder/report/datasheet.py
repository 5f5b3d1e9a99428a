"""The datasheet of a data set: what its users should know of how it came to be, as markdown.

The headings are those of "Datasheets for Datasets" (Gebru et al., arXiv 1803.09010). What a program
cannot know it leaves to the maintainers. Text from the web is escaped: it stays text.
"""

from __future__ import annotations

import datetime as dt
import importlib.resources
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
import pyarrow as pa

from wit_builder.report.facts import SPREAD, Facts, Named
from wit_builder.report.summary import Summary, quantity, round_names, share, size, words

_LONGEST = 100
"""Characters of a text from the web; a longer one is cut."""

_KINDS = {
    "wat": "WAT files",
    "warc": "WARC files",
    "tables": "lists of URLs and texts",
    "webdataset": "shards that had their pictures",
    "site": "sites, crawled live",
}


def write(summary: Summary, facts: Facts, rejections: pa.Table) -> str:
    """Return the datasheet; the same figures give the same text.

    Args:
        summary: of the report.
        facts: of the same run.
        rejections: ``stage``, ``reason`` and ``count``, as they are to be listed.
    """
    source = importlib.resources.files(__package__).joinpath("template", "datasheet.md.j2")
    # autoescape is HTML's; here ``plain`` escapes all that is not ours
    environment = jinja2.Environment(  # noqa: S701
        undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["plain"] = plain
    environment.globals.update({f.__name__: f for f in _FUNCTIONS})
    template = environment.from_string(source.read_text("utf-8"))
    text = template.render(
        summary=summary,
        packed=summary.dataset,
        facts=facts,
        spread=SPREAD,
        **_tables(summary, facts, rejections),
    )
    return "\n\n".join(_block(block) for block in re.split(r"\n{2,}", text.strip())) + "\n"


def _block(lines: str) -> str:
    """Return a table as it is, a paragraph in one line: no number begins one, as in lists."""
    return lines if lines.startswith("|") else " ".join(lines.split())


def plain(text: str) -> str:
    """Return markdown that shows the text as it is, in one line, in a table's cell, too.

    What means something to markdown gets a backslash, what means something to HTML becomes an
    entity, and what cannot be printed U+FFFD. Beyond ``_LONGEST`` characters the text is cut.
    """
    line = " ".join(text.split())
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
    line = re.sub(r"[\\`*_\[\]|~$:@]", r"\\\g<0>", line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _tables(summary: Summary, facts: Facts, rejections: pa.Table) -> dict[str, Any]:
    """Return the rows of the tables, and those tables that are not made of rows alone."""
    rounds = zip(round_names(summary.rounds), summary.rounds, strict=True)
    return {
        "funnel": [[plain(s.label), quantity(s.count, plain(s.unit))] for s in summary.funnel],
        "queries": _queries(facts.queries),
        "texts": [["characters", *_numbers(facts.text_chars)]] if facts.text_chars else [],
        "pictures": [[name, *_numbers(spread)] for name, spread in facts.pictures.items()],
        "files": [[_KINDS.get(kind, plain(kind)), f"{n:,}"] for kind, n in facts.files.items()],
        "rounds": [[n, *_numbers((r.asked, r.alive, r.dead, r.deferred))] for n, r in rounds],
        "opt_outs": [
            [plain(signal or "not noted"), words(reason), f"{n:,}"]
            for reason, signal, n in facts.opt_outs
        ],
        "dropped": [
            [plain(row["stage"]), words(row["reason"]), f"{row['count']:,}"]
            for row in rejections.to_pylist()
        ],
        "settings": [[f"`{key}`", plain(value)] for key, value in facts.settings.items()],
    }


def _queries(found: list[tuple[str, str, int]]) -> str:
    statuses = sorted({status for _, status, _ in found})
    numbers = {(source, status): n for source, status, n in found}
    sources = sorted({source for source, _, _ in found})
    rows = [
        [plain(source), *_numbers(numbers.get((source, status), 0) for status in statuses)]
        for source in sources
    ]
    return table(["queries by source", *statuses], rows)


def _numbers(values: Iterable[int]) -> list[str]:
    return [f"{value:,}" for value in values]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table: so many columns of text, then numbers. Without rows, it is "None."."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rule = f"|{' --- |' * texts}{' ---: |' * (len(head) - texts)}"
    return "\n".join([f"| {' | '.join(head)} |", rule, *lines]) if lines else "None."


def names(label: str, named: Named, whole: int) -> str:
    """Return a table of names, each with its share of the whole, and of the sum of further ones."""
    rows = [[plain(name), f"{n:,}", share(n, whole)] for name, n in named.top]
    others = named.total - top_of(named)
    if others:
        rows.append(["*others*", f"{others:,}", share(others, whole)])
    return table([label, "pairs", "share"], rows)


def top_of(named: Named) -> int:
    """Return how many values the most frequent names have together."""
    return sum(n for _, n in named.top)


def how_many(named: Named, unit: str) -> str:
    """Return how many different names there are, with what they name."""
    if named.names is None:
        return f"more {unit} than were counted"
    return quantity(named.names, unit)


def all_told(named: Named) -> bool:
    """Return whether no name was left out of the most frequent ones."""
    return named.names == len(named.top)


def exactness(named: Named) -> str:
    """Return a sentence on how exact the numbers are, where they are not."""
    if not named.missed:
        return ""
    return f"They were too many to hold: a number may be too low, by {named.missed:,} at most."


def dates(times: tuple[int, int] | None) -> str:
    """Return the days of two times, in UTC."""
    if times is None:
        return "at a time that is not known"
    first, last = (dt.datetime.fromtimestamp(t, dt.UTC).date().isoformat() for t in times)
    return f"on {first}" if first == last else f"from {first} to {last}"


_FUNCTIONS = (table, names, top_of, how_many, all_told, exactness, dates, quantity, size, share)
