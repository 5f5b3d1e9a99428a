"""What a data set holds, counted from the run's tables for its datasheet.

Figures are of the pairs that are kept, unless they say otherwise. Memory: a batch of rows, the uids
that one bucket keeps, the most frequent names of each kind, and 8 bytes for each of the kept pairs
whose pictures are looked at, ``PICTURES`` of them at most: their tables lie by domain, those of
kept pairs by URL.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import __version__, storage
from wit_builder.report.count import count_kept
from wit_builder.report.folder import I64, U64, RunFolder
from wit_builder.tables import Outcome, Reason
from wit_builder.web.domains import registrable

PICTURES = 1 << 24
"""Kept pairs whose pictures are measured: all, or a sample of so many, those of lowest uid."""

NAMES = 1 << 19
"""Different names (domains, licences, archives) that are held of one kind."""

TOP = 20
"""Names of a kind that are told one by one."""

_SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SPREAD = ["smallest", "5 %", "25 %", "median", "75 %", "95 %", "largest"]
"""What the figures of a ``Spread`` are called: no more than that share of the values is smaller."""

_HOST = r"^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/:?#]+)"
_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses|publicdomain)/([a-z+-]+)(?:/([0-9.]+))?(?:/([a-z-]+))?(?:/|$)"
)
_PUBLIC = {"zero": "CC0", "mark": "Public Domain Mark", "publicdomain": "Public Domain"}
_SETTINGS = ("match", "balance", "image", "pack")
_KB = 1000
EXACT_BYTES = 10_000
"""Sizes of pictures below it are told to the byte, others to the kB."""

_FIRST_KB = EXACT_BYTES - EXACT_BYTES // _KB
"""A size of so many kB counts as this plus them: right above those that count by themselves."""

Spread = tuple[int, ...]
"""Values at the shares of ``SPREAD``, by nearest rank."""


class Named(msgspec.Struct, frozen=True):
    """How often each name occurs, most frequent first.

    Attributes:
        top: the ``TOP`` most frequent, and how often each occurs; by name where that is the same.
        total: how many values there are, of any name.
        names: how many different names there are; None if there were too many to hold.
        missed: by so much, at most, a count of ``top`` may be too low.
    """

    top: list[tuple[str, int]]
    total: int
    names: int | None
    missed: int = 0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a datasheet tells beside the summary.

    Attributes:
        version: of the program that counted.
        settings: keys of the recipe that decide what is kept, and their values.
        files: candidates files by kind of source: one for each archive, list, shard or site.
        queries: source, status, and how many queries have both.
        pairs: how many pairs are kept.
        captured: first and last time a page was captured, seconds since 1970, if any is known.
        not_dated: pairs of whose page that time is not known.
        fetched: first and last time a picture came alive, kept or spare; the same unit.
        text_from: which part of a page gave the text.
        languages: of the texts, as detected; ``total`` is 0 if none was.
        licenses: as stated by pages; ``total`` is the pairs whose page states one.
        archives: what the pairs were found in.
        domains: registrable domains of the pictures' URLs, where these are known.
        text_chars: lengths of the texts in characters.
        pictures: what was measured, with its unit, and how it is spread.
        types: media types of the pictures as downloaded.
        pictures_measured: pairs of which ``pictures`` and ``types`` are.
        opt_outs: reason, signal, and how many pages or pictures of all were left out for it.
    """

    version: str
    settings: dict[str, str]
    files: dict[str, int]
    queries: list[tuple[str, str, int]]
    pairs: int
    captured: tuple[int, int] | None
    not_dated: int
    fetched: tuple[int, int] | None
    text_from: Named
    languages: Named
    licenses: Named
    archives: Named
    domains: Named
    text_chars: Spread | None
    pictures: dict[str, Spread]
    types: Named
    pictures_measured: int
    opt_outs: list[tuple[str, str, int]]


class Tally:
    """Counts names; exactly as long as there are no more than ``NAMES`` different ones.

    Of more, the rarer ones are forgotten, and half as many left (as in Manku and Motwani's lossy
    counting, VLDB 2002). Frequent ones outlive that: a count is too low by ``missed`` at most.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._total = self._missed = 0

    def add(self, counts: Iterable[tuple[str, int]]) -> None:
        """Add names and how often each occurred."""
        for name, count in counts:  # the different names of a batch: 0.2 us each
            self._counts[name] += count
            self._total += count
        if len(self._counts) > NAMES:
            limit = sorted(self._counts.values(), reverse=True)[NAMES // 2]
            self._missed += limit
            self._counts = Counter({n: c for n, c in self._counts.items() if c > limit})

    def named(self) -> Named:
        """Return what was counted."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        names = None if self._missed else len(ranked)
        return Named(ranked[:TOP], self._total, names, self._missed)


class Lengths:
    """Counts small numbers, each by itself."""

    def __init__(self) -> None:
        self._counts: I64 = np.zeros(0, np.int64)

    def add(self, values: pa.ChunkedArray | pa.Array) -> None:
        """Add numbers, none negative; nulls are passed over."""
        found = np.bincount(values.drop_null().to_numpy(), minlength=self._counts.size)
        found[: self._counts.size] += self._counts
        self._counts = found.astype(np.int64)

    def spread(self) -> Spread | None:
        """Return how the values are spread; None if there were none."""
        below = np.cumsum(self._counts)
        if not below.size or not below[-1]:
            return None
        ranks = [max(1, int(np.ceil(share * below[-1]))) for share in _SHARES]
        return tuple(int(value) for value in np.searchsorted(below, ranks))


class Sizes:
    """Counts sizes in bytes: each by itself below ``EXACT_BYTES``, and to the kB from there on."""

    def __init__(self) -> None:
        self._steps = Lengths()

    def add(self, values: pa.Array) -> None:
        """Add sizes; nulls are passed over."""
        found: I64 = values.drop_null().to_numpy().astype(np.int64)
        steps = np.where(found < EXACT_BYTES, found, _FIRST_KB + (found + _KB // 2) // _KB)
        self._steps.add(pa.array(steps))

    def spread(self) -> Spread | None:
        """Return how the sizes are spread, in bytes; None if there were none."""
        steps = self._steps.spread()
        return steps and tuple(s if s < EXACT_BYTES else (s - _FIRST_KB) * _KB for s in steps)


class Times:
    """The first and the last of some times, in seconds since 1970, and how many are not known."""

    def __init__(self) -> None:
        self.range: tuple[int, int] | None = None
        self.unknown = 0

    def add(self, column: pa.ChunkedArray | pa.Array) -> None:
        """Add timestamps; nulls are those that are not known."""
        self.unknown += column.null_count
        # parquet has no seconds: what is read back counts milliseconds
        found = pc.min_max(column.cast(pa.timestamp("s", "UTC")).cast(pa.int64())).as_py()
        if found["min"] is not None:
            first, last = self.range or (found["min"], found["max"])
            self.range = min(first, found["min"]), max(last, found["max"])


def count(run: RunFolder, balance: pa.Table) -> Facts:
    """Return the facts of a run; the same tables give the same facts.

    Args:
        run: the run, all of whose buckets were kept of.
        balance: the report's table of queries (``tables.BALANCE``).

    Raises:
        StorageError: a table is missing or damaged.
    """
    pairs, highs = _kept(run)
    return Facts(
        version=__version__,
        settings=_settings(run),
        files=_files(run),
        queries=_queries(balance),
        pairs=pairs,
        opt_outs=_opt_outs(run),
        **_texts(run),
        **_pictures(run, highs, pairs),
    )


def _settings(run: RunFolder) -> dict[str, str]:
    """Return the keys of the resolved recipe that decide what is kept, as far as it is there."""
    place = storage.join(run.root, "recipe.toml")
    data = storage.read_many([place]).get(place, b"")
    recipe: dict[str, Any] = tomllib.loads(data.decode())
    found = {"seed": recipe["seed"]} if "seed" in recipe else {}
    for section in _SETTINGS:
        values = recipe.get(section, {})
        found |= {f"{section}.{key}": value for key, value in values.items()}
    return {key: msgspec.json.encode(value).decode() for key, value in found.items()}


def _files(run: RunFolder) -> dict[str, int]:
    folders = [storage.join(run.root, name, "candidates") for name in run.generations]
    names = [storage.name_of(url) for f in folders for url in storage.list_files(f, ".arrow")]
    return dict(sorted(Counter(name.rpartition("-")[0] for name in names).items()))


def _queries(balance: pa.Table) -> list[tuple[str, str, int]]:
    found = balance.group_by(["source", "status"]).aggregate([([], "count_all")]).to_pylist()
    return sorted((row["source"], row["status"], row["count_all"]) for row in found)


def _kept(run: RunFolder) -> tuple[int, U64]:
    """Return how many pairs are kept, and the beginnings of the uids to measure, sorted."""
    total = count_kept(run)
    limit = np.uint64((1 << 64) - 1 if total <= PICTURES else (PICTURES << 64) // total)
    found = [np.zeros(0, np.uint64)]
    for url in run.kept:
        for batch in storage.parquet_batches(url, ["uid"]):
            begins = beginnings(batch["uid"])
            found.append(begins[begins <= limit])
    return total, np.sort(np.concatenate(found))


def beginnings(uids: pa.Array) -> U64:
    """Return the first eight bytes of uids; they are hashes, so hardly two begin alike."""
    if not len(uids):
        return np.zeros(0, np.uint64)
    halves = np.frombuffer(uids.buffers()[1], ">u8")  # two of each uid
    return halves[2 * uids.offset :: 2][: len(uids)].astype(np.uint64)


def _texts(run: RunFolder) -> dict[str, Any]:
    """Return the facts that the matched tables tell of kept pairs."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    chars, captured = Lengths(), Times()
    for rows in _kept_rows(run):
        chars.add(pc.utf8_length(rows["text"]))
        captured.add(rows["found_at"])
        for name in ("text_from", "language", "archive"):
            tallies[name].add(_values(rows[name]))
        tallies["license"].add((license_name(url), n) for url, n in _values(rows["license"]))
        hosts = pc.struct_field(pc.extract_regex(rows["url"], _HOST), "host")
        tallies["domain"].add((registrable(host), n) for host, n in _values(hosts))
    return {
        "captured": captured.range,
        "not_dated": captured.unknown,
        "text_from": tallies["text_from"].named(),
        "languages": tallies["language"].named(),
        "licenses": tallies["license"].named(),
        "archives": tallies["archive"].named(),
        "domains": tallies["domain"].named(),
        "text_chars": chars.spread(),
    }


_TEXT_COLUMNS = ["uid", "url", "text", "text_from", "license", "archive", "found_at", "language"]


def _kept_rows(run: RunFolder) -> Iterator[pa.RecordBatch]:
    """Yield what matched tables have of kept pairs, bucket by bucket.

    A generation that redid all keeps pairs that earlier ones matched: a bucket is of all of them.
    """
    kept: dict[str, list[str]] = defaultdict(list)
    matched: dict[str, list[str]] = defaultdict(list)
    for found, urls in ((kept, run.kept), (matched, run.tables("matched"))):
        for url in urls:
            found[storage.name_of(url)].append(url)
    for name in sorted(kept):
        uids = pa.concat_tables([storage.read_parquet(url, ["uid"]) for url in kept[name]])["uid"]
        for url in matched[name]:
            for batch in storage.parquet_batches(url, _TEXT_COLUMNS):
                yield batch.filter(pc.is_in(batch["uid"], value_set=uids))


def _values(column: pa.Array) -> list[tuple[str, int]]:
    """Return the different values of a column, without nulls, and how often each occurs."""
    found = pc.value_counts(column.drop_null())
    return list(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True))


@functools.lru_cache(maxsize=1 << 16)
def license_name(url: str) -> str:
    """Return what to call the licence at a URL: Creative Commons' by name, another by its place."""
    place = re.sub(r"^[a-z]+://(www\.)?", "", url.lower())
    place = re.sub(r"[?#].*", "", place).rstrip("/")
    match = _CREATIVE_COMMONS.match(place)
    if not match:
        return place
    kind, version, port = match.groups()
    name = _PUBLIC.get(kind, f"CC {kind.upper()}")
    ported = port if port and not port.startswith(("deed", "legalcode")) else ""
    return " ".join(part for part in (name, version, ported.upper()) if part)


_MEASURED = {
    "width, pixels": "width",
    "height, pixels": "height",
    "width as downloaded, pixels": "original_width",
    "height as downloaded, pixels": "original_height",
}
_PICTURE_COLUMNS = ["uid", "outcome", "fetched_at", "mime", "size_bytes", *_MEASURED.values()]


def _pictures(run: RunFolder, highs: U64, pairs: int) -> dict[str, Any]:
    """Return the facts that the image tables tell of kept pairs, or of a sample of them."""
    lengths = {name: Lengths() for name in _MEASURED}
    sizes, types, fetched, measured = Sizes(), Tally(), Times(), 0
    for url in [url for files in run.rounds("images") for url in files] if pairs else []:
        for batch in storage.parquet_batches(url, _PICTURE_COLUMNS):
            alive = batch.filter(pc.equal(batch["outcome"], Outcome.ALIVE.value))
            fetched.add(alive["fetched_at"])
            rows = alive.filter(pa.array(_among(beginnings(alive["uid"]), highs)))
            measured += len(rows)
            types.add(_values(rows["mime"]))
            sizes.add(rows["size_bytes"])
            for name, column in _MEASURED.items():
                lengths[name].add(rows[column])
    spreads = {name: found.spread() for name, found in lengths.items()}
    spreads["size as downloaded, bytes (large ones to the kB)"] = sizes.spread()
    return {
        "fetched": fetched.range,
        "pictures": {name: spread for name, spread in spreads.items() if spread},
        "types": types.named(),
        "pictures_measured": measured,
    }


def _among(values: U64, known: U64) -> Any:
    """Return which values are among the known ones, which are sorted."""
    at = np.searchsorted(known, values)
    found = np.zeros(len(values), np.bool_)
    inside = at < known.size
    found[inside] = known[at[inside]] == values[inside]
    return found


_TOLD_BY_DETAIL = [Reason.OPT_OUT_PAGE.value, Reason.OPT_OUT_HEADER.value]


def _opt_outs(run: RunFolder) -> list[tuple[str, str, int]]:
    """Return reason, signal and count of all that was left out because somebody asked for it."""
    found: Counter[tuple[str, str]] = Counter()
    for url in run.tables("rejected"):
        for batch in storage.parquet_batches(url, ["reason", "detail"]):
            for reason in _TOLD_BY_DETAIL:
                rows = batch.filter(pc.equal(batch["reason"], reason))
                for detail, count in _values(rows["detail"].fill_null("")):
                    found.update({(reason, signal): count for signal in detail.split(", ")})
    for files in run.rounds("images"):
        for url in files:
            for batch in storage.parquet_batches(url, ["reason", "opt_outs"]):
                rows = batch.filter(pc.equal(batch["reason"], Reason.OPT_OUT_IMAGE.value))
                signals = _values(pc.list_flatten(rows["opt_outs"]))
                found.update({(Reason.OPT_OUT_IMAGE.value, s): n for s, n in signals})
    return [(*key, count) for key, count in sorted(found.items())]
