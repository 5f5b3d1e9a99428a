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
from wit_builder.removal.finding import Mask, Names
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
        pairs: that the run has, or had, of those that are listed; of a data set, its samples.
        samples: of the shards that hold bytes no more.
    """

    pairs: int
    samples: int


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


def _counted_in_run(root: str, asked: list[Entry]) -> Removed:
    uids = finding.in_run(root, Names.of(wanted.joined(wanted.read(root), asked)))
    finished = [f for f in _data_sets(root) if storage.exists(storage.join(f, layout.DATASET))]
    return Removed(len(uids), sum(shards.count(folder, uids) for folder in finished))


def _remove_from_run(root: str, asked: list[Entry], say: Say) -> Removed:
    """Remove from a run; the list gets the uids of what is found, before anything is blanked.

    For afterwards a pair is known by its uid alone.
    """
    listed = wanted.add(root, asked)
    say("looking for what is listed")
    uids = finding.in_run(root, Names.of(listed))
    names = Names.of(wanted.add(root, [Entry("uid", uid.hex()) for uid in uids.to_pylist()]))
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
    return Removed(len(uids), samples)


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
    found = shards.count(root, _found_in_data_set(root, asked))
    return Removed(found, found)


def _remove_from_data_set(root: str, asked: list[Entry], say: Say) -> Removed:
    shards.remove(root, finding.NONE)  # what was cut short: before, it cannot be looked through
    say("looking for what is listed")
    uids = _found_in_data_set(root, asked)
    say("zeroing samples")
    found = shards.remove(root, uids).samples
    return Removed(found, found)


def _found_in_data_set(root: str, asked: list[Entry]) -> pa.Array:
    names = Names.of(wanted.joined(wanted.NOTHING, asked))
    if names.are_uids_only:
        return names.uids

    def is_named(samples: list[Metadata]) -> Mask:
        urls, digests = ([getattr(m, name) for m in samples] for name in ("url", "sha256"))
        columns = [pa.array(urls, pa.string()), pa.array(digests, pa.string())]
        return names.mask(pa.table(columns, ["url", "sha256"]))

    return pa.concat_arrays([names.uids, shards.find(root, is_named)]).unique()


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
