"""The commands about shards: pack, index, verify, remove."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter

from wit_builder.cli_app import (
    DEFAULT,
    LOOK,
    STAGES,
    AsJson,
    How,
    Out,
    Workers,
    app,
    build_until,
    print_rows,
    running,
)
from wit_builder.errors import RecipeError, ShardFormatError, StorageError

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from wit_builder.removal import Removed
    from wit_builder.shards.index import Indexed

_MISSED_SHOWN = 20
_RECIPE_OR_DOWNLOAD = "A recipe (TOML), local or s3://; or a folder that img2dataset downloaded to."
_FULL = "Pack what all generations keep anew, as one set of shards."
_RESHARD = (
    "Pack a finished data set anew, whose folder is named in place of a recipe: other sizes "
    "(--set pack.samples_per_shard=5000), another order (--set seed=1)."
)
_FAULTS_SHOWN = 20
DryRun = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Listed:
    """What is to be removed; each may be given several times.

    Attributes:
        url: Of a picture.
        host: All pictures that it serves, and all hosts below it. Of a data set without its run
            only those whose first URL is there: redirects are known to the run alone.
        uid: Of a pair, 32 hex digits.
        sha256: Of pictures as downloaded.
        md5: Of pictures as downloaded.
        phash: Of pictures: 16 hex digits, as in the images table.
        list: A file of such, a line each, e.g. "host example.org  # why"; "#" begins a comment.
    """

    url: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    host: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    uid: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    sha256: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    md5: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    phash: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    list: Annotated[tuple[str, ...], Parameter(negative="")] = ()


NOTHING = Listed()


def pack(
    recipe: Annotated[str, Parameter(help=_RECIPE_OR_DOWNLOAD)],
    *,
    out: Out,
    full: Annotated[bool, Parameter(help=_FULL, negative="")] = False,
    reshard: Annotated[bool, Parameter(help=_RESHARD, negative="")] = False,
    how: How = DEFAULT,
) -> None:
    """Pack kept pairs into tar shards with manifest and block table.

    Stages before it that are not done yet are done first. Of a download nothing is asked for again:
    all its pairs are packed, into ROOT/g0/shards.
    """
    from wit_builder import storage
    from wit_builder.adopt import download

    if reshard:
        _reshard(recipe, out, how)
        return
    if download.is_folder(recipe):
        _adopt(recipe, out, how)
        return
    if not storage.exists(recipe):
        raise RecipeError(
            "there is neither a recipe nor a download here",
            where=storage.redact(recipe),
            fix="name a recipe (TOML), or the folder that img2dataset downloaded to",
        )
    build_until(recipe, out, how, "pack", "pack" if full else "")
    print(f"to report on what is packed now: wit report {out}", file=sys.stderr)


def _reshard(shards: str, out: str, how: How) -> None:
    from wit_builder import recipe as recipes
    from wit_builder import resharding
    from wit_builder.sections import Recipe

    for override in how.set_:
        if not re.match(r"\s*(seed|pack\.\w+)\s*=", override):
            raise RecipeError(
                "nothing else matters to shards that are packed anew",
                where=f"--set {override}",
                fix="what can be set: seed, pack.samples_per_shard, pack.max_block_bytes",
            )
    settings = recipes.overridden({}, Recipe, how.set_, where="--set")
    with running(out, how) as run:
        made = resharding.reshard(shards, out, settings.pack, settings.seed, run)
    if how.json:
        print(msgspec.json.encode(made).decode())
    else:
        print(f"shards {made.shards:,}, samples {made.samples:,}, bytes {made.bytes:,}")


def _adopt(folder: str, out: str, how: How) -> None:
    from wit_builder.adopt import build

    settings = build.settings(how.set_)
    with running(out, how) as run:
        counts = build.build(folder, run, settings)
    if how.json:
        print(msgspec.json.encode(counts).decode())
    else:
        print_rows([(name, f"{count:,}") for name, count in counts.items()])


def index(
    *shards: str,
    out: str,
    image: str = "jpg,jpeg,png,webp",
    caption: str = "txt",
    missing: Literal["refuse", "skip"] = "refuse",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Make a data set of WebDataset shards that are there already, so that they stream.

    Every shard is read once, and stays as and where it is. What is done already is not done again:
    starting the same command again resumes.

    Args:
        shards: Tars, local, s3:// or https://: with braces, such as
            s3://bucket/{00000..00331}.tar, or *; or a folder of them.
        out: Folder of the tables, local or s3://; may be the one that the shards are in.
        image: Endings of members that are pictures; the first one that a sample has counts.
        caption: Endings of members that are captions; json:KEY if they are JSON with the caption
            under a key.
        missing: Leave out shards that are not there, or refuse to go on.
        workers: Worker processes; by default one a core.
        as_json: Print the result as JSON.
    """
    from wit_builder import progress, runners
    from wit_builder.shards import index as indexing

    if not shards:
        raise StorageError("no shard is named", fix="wit index SHARDS --out DIR")
    runner = runners.make_runner(workers or runners.default_workers())
    try:
        with progress.for_terminal(as_json=as_json) as observer:
            asked = indexing.Asked(
                list(shards), indexing.members(image, caption), skip_missing=missing == "skip"
            )
            found = indexing.index(asked, out, runner, observer)
    finally:
        runner.close()
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        _print_indexed(found)


def _print_indexed(found: Indexed) -> None:
    print(f"indexed: shards {found.shards:,}, samples {found.samples:,}, bytes {found.bytes:,}")
    for name, count in found.counts.items():
        print(f"{name.replace('_', ' ')}: {count:,}")
    _print_some([fault.told() for fault in found.faults])
    if found.missing:
        print(f"shards left out, because they are missing: {len(found.missing):,}", file=sys.stderr)
        _print_some(found.missing)


def _print_some(lines: list[str]) -> None:
    for line in lines[:_FAULTS_SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if len(lines) > _FAULTS_SHOWN:
        print(f"  and {len(lines) - _FAULTS_SHOWN:,} more; --json names them", file=sys.stderr)


def verify(
    shards: str,
    /,
    *,
    decode: Annotated[bool, Parameter(negative="")] = False,
    resume: str = "",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Check every shard, member and digest of a data set; name each fault's place.

    Args:
        shards: The data set's folder, local or s3://.
        decode: Decode every picture, too.
        resume: A folder, local or s3://, for notes of what is checked already: a verify that was
            cut short goes on from them, and reads again what has changed since. They are removed
            at the end.
        workers: Worker processes; by default one a core.
        as_json: Print the result as JSON.
    """
    from wit_builder import progress
    from wit_builder.shards import verify as checking

    with progress.for_terminal(as_json=as_json) as observer:
        found = checking.verify(shards, workers, decode=decode, resume=resume, observer=observer)
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        print(f"checked: shards {found.shards:,}, samples {found.samples:,}, bytes {found.bytes:,}")
        for fault in found.faults:
            print(fault.error(), file=sys.stderr)
    if found.faults:
        raise ShardFormatError(
            f"not whole (faults: {len(found.faults)})", where=shards, fix="see each fault's line"
        )


def remove(
    place: str, /, *, what: Listed = NOTHING, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Take pairs out for good: of a run's tables, pictures and shards, or of a data set alone.

    Nothing moves: samples keep their slots, as zeros, so training goes on where it was. What was
    removed from a run is never asked for again. Without options, what is listed already
    (ROOT/removed.parquet) is removed again: that finishes what was cut short.

    Args:
        place: A run's folder, or that of a data set without its run; local or s3://.
        what: What to remove.
        dry_run: Only say how much that would be.
        as_json: Print the result as JSON.
    """
    from wit_builder import removal
    from wit_builder.removal import wanted

    asked = [wanted.asked(by, value) for by in wanted.BY for value in getattr(what, by)]
    asked += (found for listed in what.list for found in wanted.read_list(listed))
    entries = (found.entry for found in asked)
    done = removal.remove(place, entries, dry_run=dry_run, say=_say_unless(quiet=as_json))
    missed = set(done.unmatched)
    unmatched = [found.said for found in asked if found.entry in missed]
    if as_json:
        print(msgspec.json.encode(done._asdict() | {"unmatched": unmatched}).decode())
    else:
        _print_removed(done, unmatched, "would be " if dry_run else "")


def _print_removed(done: Removed, unmatched: list[str], would: str) -> None:
    print(f"pairs {would}removed: {done.pairs:,}; samples {would}zeroed: {done.samples:,}")
    if done.is_finishing:
        print(f"an earlier removal {would or 'was '}finished")
    if done.earlier:
        print(f"further pairs {would}removed, of what was listed before: {done.earlier:,}")
    if unmatched:
        print(f"not there, or not any more: {len(unmatched):,} of what was asked for")
    for said in unmatched[:_MISSED_SHOWN]:
        print(f"  {said}")
    if len(unmatched) > _MISSED_SHOWN:
        print(f"  and {len(unmatched) - _MISSED_SHOWN:,} more; --json names all")
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)


def _say_unless(*, quiet: bool) -> Callable[[str], object]:
    return lambda words: quiet or print(words, file=sys.stderr)


def register() -> None:
    """Make these commands the program's."""
    app.command(pack, group=STAGES)
    for command in (index, verify, remove):
        app.command(command, group=LOOK)
