"""Takes pairs out of a run, or out of a data set, for good: ``wit remove``.

``wanted`` is the list of what is to go, which is written down first; ``finding`` the pairs that it
names; ``blanking`` takes them out of a table or a tar. ``shards.removal`` does so in shards.

For every pair, a run has at the end: its row in the tables of each stage, with uid and query ids,
but without URL, text, page, licence and digests; no picture; no row in the files between stages and
among the kept pairs; a slot of zeros in the shards. Nothing is done anew for that. A later build
with other settings takes such a pair for dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import leftovers, lock, storage, units
from wit_builder.errors import RecipeError, StorageError
from wit_builder.removal import blanking, finding, visits, wanted
from wit_builder.removal.finding import Found, Mask, Names
from wit_builder.removal.wanted import FILE, Entry
from wit_builder.shards import layout
from wit_builder.shards import removal as shards
from wit_builder.shards.layout import Metadata
from wit_builder.shards.read import read_info
from wit_builder.units import Run

__all__ = ["Removed", "refuse_unfinished", "remove"]

_NOT_IN_SHARDS = {"md5", "phash"}

Say = Callable[[str], object]


class Removed(NamedTuple):
    """What a removal took out, or would.

    Attributes:
        pairs: that the entries of this call name and that were still there; of a data set, samples.
        samples: of the shards that hold bytes no more, whoever named them.
        earlier: further pairs that were still there, though the run's list had named them before.
        is_finishing: whether an earlier removal had been cut short, and is finished by this one.
        unmatched: those entries of this call that name no pair that was still there.
        notes: what was not looked for, in words.
    """

    pairs: int
    samples: int
    earlier: int = 0
    is_finishing: bool = False
    unmatched: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()


def remove(
    place: str, entries: Iterable[Entry] = (), *, dry_run: bool = False, say: Say = lambda _: None
) -> Removed:
    """Take what is listed, and these entries as well, out of a run or a data set.

    Starting again finishes what was cut short, and finds what has come since.

    Args:
        place: a run's folder, or one of a data set without its run.
        entries: what to remove (``wanted.entry``).
        dry_run: change nothing, and tell what would be removed.
        say: told in words what is done.

    Raises:
        RecipeError: nothing is listed, or a data set is named by what its samples do not tell.
        ShardFormatError: a data set is damaged, or there is neither run nor data set.
        StorageError: something cannot be read or written, or another ``wit`` is at work there.
    """
    root, asked = place.rstrip("/"), list(entries)
    is_run = storage.exists(storage.join(root, "recipe.toml"))
    if not is_run:
        _refuse_shards_of_a_run(root)
        _refuse_unknowable(asked)
        read_info(root)  # says what there is instead
    elif not asked and not len(wanted.read(root)):
        raise RecipeError("nothing is listed to be removed", where=root, fix="say what: --url ...")
    if dry_run:
        return (_counted_in_run if is_run else _counted_in_data_set)(root, asked)
    with lock.alone(root):
        leftovers.sweep(root)
        return (_remove_from_run if is_run else _remove_from_data_set)(root, asked, say)


def refuse_unfinished(root: str) -> None:
    """Refuse to build where a removal was cut short: its pairs might come back.

    Raises:
        StorageError: one was.
    """
    if wanted.is_unfinished(root):
        raise StorageError(
            "a removal is not finished",
            where=storage.redact(storage.join(root, FILE)),
            fix=f"wit remove {storage.redact(root)} finishes it",
        )


# --- a run ------------------------------------------------------------------


class _Told(NamedTuple):
    """What a run has of the pairs that this call names, and of those listed before; until blanked.

    For afterwards a pair is known by its uid alone.
    """

    named: Found
    before: pa.Array
    is_unfinished: bool

    @staticmethod
    def by(root: str, asked: list[Entry]) -> _Told:
        """Look for them, before the list has what is asked for."""
        named = finding.in_run(root, Names.of(wanted.joined(wanted.NOTHING, asked)))
        before, listed = finding.NONE, wanted.read(root)
        if len(listed):
            found = finding.in_run(root, Names.of(listed)).uids
            before = found.filter(pc.invert(pc.is_in(found, value_set=named.uids)))
        return _Told(named, before, wanted.is_unfinished(root))

    @property
    def uids(self) -> pa.Array:
        return pa.concat_arrays([self.named.uids, self.before])

    def removed(self, asked: list[Entry], samples: int) -> Removed:
        return Removed(
            len(self.named.uids),
            samples,
            earlier=len(self.before),
            is_finishing=self.is_unfinished,
            unmatched=_unmatched(asked, self.named.entries),
        )


def _unmatched(asked: list[Entry], matched: set[Entry]) -> tuple[Entry, ...]:
    return tuple(entry for entry in dict.fromkeys(asked) if entry not in matched)


def _counted_in_run(root: str, asked: list[Entry]) -> Removed:
    told = _Told.by(root, asked)
    listed = Names.of(wanted.joined(wanted.read(root), asked)).uids
    uids = pa.concat_arrays([listed, told.uids]).unique()
    finished = [f for f in _data_sets(root) if storage.exists(storage.join(f, layout.DATASET))]
    return told.removed(asked, sum(shards.count(folder, uids) for folder in finished))


def _remove_from_run(root: str, asked: list[Entry], say: Say) -> Removed:
    """Remove from a run; the list gets the uids of what is found, before anything is blanked."""
    say("looking for what is listed")
    told = _Told.by(root, asked)
    wanted.add(root, asked)  # and is not finished from here on
    names = Names.of(wanted.add(root, [Entry("uid", u.hex()) for u in told.uids.to_pylist()]))
    samples = 0
    for folder in _data_sets(root):
        if not storage.exists(storage.join(folder, layout.DATASET)):
            _discard(folder, names.uids)
            continue
        say(f"zeroing samples in {storage.redact(folder)}")
        units.note_rewritten(root, _may_change(folder))
        samples += shards.remove(folder, names.uids).samples
    say("blanking tables")
    plan = [*blanking.plan(root, names), *visits.plan(root, names)]
    units.note_rewritten(root, [url for step in plan for url in step.rewrites])
    for step in plan:
        step()
    Run(root).forget("report", "report", "all")  # its figures are of what was there
    wanted.finish(root)
    return told.removed(asked, samples)


def _data_sets(root: str) -> list[str]:
    """Return the folders for shards of a run's generations."""
    return [storage.join(root, name, "shards") for name in finding.generations(root)]


def _discard(folder: str, uids: pa.Array) -> None:
    """Remove shards with some pairs from a data set that was never finished: they are made anew."""
    for url in storage.list_files(folder, ".parquet"):
        shard = url.removesuffix(".parquet") + ".tar"
        if layout.is_tar_name(storage.name_of(shard)):
            found = storage.read_parquet(url, ["uid"])["uid"]
            if pc.any(pc.is_in(found, value_set=uids)).as_py():
                storage.remove(shard)
                storage.remove(url)


def _may_change(folder: str) -> list[str]:
    return [url for url in storage.list_files(folder) if storage.name_of(url) != layout.SIZES]


# --- a data set without its run ---------------------------------------------


def _counted_in_data_set(root: str, asked: list[Entry]) -> Removed:
    found = _found_in_data_set(root, asked)
    return _removed_from_data_set(asked, found, shards.count(root, found.uids))


def _remove_from_data_set(root: str, asked: list[Entry], say: Say) -> Removed:
    info = read_info(root)
    shards.remove(root, finding.NONE)  # what was cut short: before, it cannot be looked through
    is_finishing = read_info(root) != info
    say("looking for what is listed")
    found = _found_in_data_set(root, asked)
    say("zeroing samples")
    samples = shards.remove(root, found.uids).samples
    return _removed_from_data_set(asked, found, samples)._replace(is_finishing=is_finishing)


def _removed_from_data_set(asked: list[Entry], found: Found, samples: int) -> Removed:
    unmatched = _unmatched(asked, found.entries)
    return Removed(samples, samples, unmatched=unmatched, notes=_notes(asked))


def _notes(asked: list[Entry]) -> tuple[str, ...]:
    hosts = sorted({entry.value for entry in asked if entry.by == "host"})
    if not hosts and not any(entry.by == "url" for entry in asked):
        return ()
    whither = "a URL" if not hosts else hosts[0] if len(hosts) == 1 else "these hosts"
    told = "samples tell only the URL that was asked for first: pictures that were redirected to"
    return (f"{told} {whither} are not found; remove them in the run",)


def _found_in_data_set(root: str, asked: list[Entry]) -> Found:
    names = Names.of(wanted.joined(wanted.NOTHING, asked))
    uids = shards.present(root, names.uids)
    entries = {Entry("uid", uid.hex()) for uid in uids.to_pylist()}
    if names.are_uids_only:
        return Found(uids, entries)

    def is_named(samples: list[Metadata]) -> Mask:
        urls, digests = ([getattr(m, name) for m in samples] for name in ("url", "sha256"))
        columns = [pa.array(urls, pa.string()), pa.array(digests, pa.string())]
        table = pa.table(columns, ["url", "sha256"])
        mask = names.mask(table)
        entries.update(names.entries(table.filter(pa.array(mask))))
        return mask

    return Found(pa.concat_arrays([uids, shards.find(root, is_named)]).unique(), entries)


def _refuse_shards_of_a_run(folder: str) -> None:
    run = folder.rsplit("/", 2)[0]
    if folder.count("/") > 1 and storage.exists(storage.join(run, "recipe.toml")):
        raise RecipeError(
            "these shards belong to a run, whose tables have the pairs as well",
            where=storage.redact(folder),
            fix=f"wit remove {storage.redact(run)} ...",
        )


def _refuse_unknowable(asked: list[Entry]) -> None:
    if unknown := sorted({entry.by for entry in asked} & _NOT_IN_SHARDS):
        raise RecipeError(
            f"the samples of a data set do not tell their {unknown[0]}",
            where=f"--{unknown[0]}",
            fix="name the run that made it, or use --url, --host, --sha256 or --uid",
        )
