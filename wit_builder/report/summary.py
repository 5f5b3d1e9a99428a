"""The figures of a run that fit on a terminal."""

from __future__ import annotations

import msgspec

from wit_builder import storage
from wit_builder.errors import StorageError
from wit_builder.report.count import Round
from wit_builder.report.folder import RunFolder


class Step(msgspec.Struct, frozen=True):
    """One step of the funnel: what it is called, how many came through, and of what."""

    label: str
    count: int
    unit: str = "pairs"


class Packed(msgspec.Struct, frozen=True):
    """The size of the packed data set: samples, tars, and bytes of all tars."""

    samples: int
    shards: int
    bytes: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a run; ``report/summary.json`` holds them for machines.

    Attributes:
        statuses: number of queries by status, in the order of ``count.STATUSES``.
        pairs_kept: pairs that at least one query keeps.
    """

    title: str
    recipe_digest: str
    generation: str
    since: str = "g0"
    cap_per_query: int
    queries: int
    statuses: dict[str, int]
    funnel: list[Step]
    rounds: list[Round]
    dataset: Packed
    pairs_kept: int


def refuse_unbuilt(root: str) -> None:
    """Refuse to tell of a run that no build has come to the end of.

    Raises:
        StorageError: nothing says yet what is kept.
    """
    if not RunFolder(root).has_kept:
        raise StorageError(
            "nothing to report on yet: no build has come to what is kept",
            where=storage.redact(root),
            fix="build it to the end with wit build, or look at the tables of the stages so far",
        )


def read_summary(root: str) -> Summary:
    """Return the figures that the last report of a run wrote.

    Raises:
        StorageError: there is no report yet, or it is of another version.
    """
    place = RunFolder(root).report("summary.json")
    try:
        return msgspec.json.decode(storage.read_bytes(place), type=Summary)
    except msgspec.DecodeError as error:
        raise StorageError(
            f"not a summary that this version reads: {error}",
            where=storage.redact(place),
            fix=f"write the report anew with wit report {storage.redact(root)}",
        ) from error


def summary_rows(root: str) -> list[tuple[str, str]]:
    """Return label and figure, with its unit, of every stage, round, status and rejection.

    Raises:
        StorageError: there is no report yet.
    """
    told = read_summary(root)
    rejections = storage.read_parquet(RunFolder(root).report("rejections.parquet")).to_pylist()
    rows = [(step.label, quantity(step.count, step.unit)) for step in told.funnel]
    rows += zip(round_names(told.rounds), map(_answers, told.rounds), strict=True)
    rows += [(f"queries {name}", quantity(n, "queries")) for name, n in told.statuses.items()]
    rows += [(f"lost in {r['stage']}: {words(r['reason'])}", f"{r['count']:,}") for r in rejections]
    return [*rows, ("on disk", _on_disk(told.dataset))]


def _on_disk(packed: Packed) -> str:
    if not packed.shards:
        return "nothing: no pair was kept"
    return f"{quantity(packed.shards, 'shards')}, {size(packed.bytes)}"


def round_names(rounds: list[Round]) -> list[str]:
    """Return what to call each round; its generation stands before it where there are several."""
    several = len({r.generation for r in rounds}) > 1
    return [f"{r.generation} round {r.number}" if several else f"round {r.number}" for r in rounds]


def _answers(r: Round) -> str:
    asked = f"{quantity(r.asked, 'pairs')} asked for"
    answers = f"{r.alive:,} alive, {r.dead:,} dead, {r.deferred:,} deferred"
    return f"{asked}: {answers}; {quantity(r.unknown, 'drawn pairs')} still unknown"


def quantity(count: int, unit: str) -> str:
    """Return a count with its unit, singular where it is one: ``1 query``, ``2,000 queries``."""
    return f"{count:,} {_singular(unit) if count == 1 else unit}"


def _singular(unit: str) -> str:
    if unit.endswith("ies"):
        return unit[:-3] + "y"
    return unit.removesuffix("es" if unit.endswith("ches") else "s")


def size(size_bytes: float) -> str:
    """Return a size in decimal units, three digits at most before the point: ``12.3 MB``."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000 or unit == "TB":
            break
        size_bytes /= 1000
    return f"{size_bytes:,.0f} {unit}" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"


def share(part: float, whole: float) -> str:
    """Return a share in per cent, exact at the ends: only all of it is ``100 %``."""
    if whole == 0:
        return "n/a"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


_SPELLED = {"http": "HTTP", "dns": "DNS", "tls": "TLS", "url": "URL", "html": "HTML", "opt": "opt-"}


def words(reason: str) -> str:
    """Return a reason of the closed list as words: ``opt_out_page`` as ``opt-out page``."""
    return " ".join(_SPELLED.get(w, w) for w in reason.split("_")).replace("- ", "-")
