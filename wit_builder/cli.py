"""``wit``, the one program: every command is a thin door to a function of the library.

Exit status: 0 done, 1 failed (one line says what, where, and what to do), 2 wrong usage, 130
interrupted (start the same command again to go on).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import App, CycloptsError, Group, Parameter, validators

from wit_builder import __version__
from wit_builder.errors import QueryListError, RecipeError, ShardFormatError, WitError

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from wit_builder.generations import Whole
    from wit_builder.pipeline import Until
    from wit_builder.removal import Removed
    from wit_builder.units import Run

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_MISSED_SHOWN = 20

app = App(
    name="wit",
    version=__version__,
    help="From query lists to class-balanced image-text shards, and on to a trained CLIP.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
_STAGES = Group("One stage of a build, and those before it", sort_key=2)
_LOOK = Group("Look at what is there", sort_key=3)
_WHOLE = Group("The whole of it", sort_key=1)
_MODEL = Group("The model", sort_key=4)


def _some(_: object, place: str) -> None:
    if not place:  # as of an unset variable of the shell
        raise ValueError("name a folder")


Root = Annotated[str, Parameter(help="The run's folder, local or s3://.")]
Recipe = Annotated[str, Parameter(help="A recipe (TOML), local or s3://.")]
_RECIPE_OR_DOWNLOAD = "A recipe (TOML), local or s3://; or a folder that img2dataset downloaded to."
Workers = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
DryRun = Annotated[bool, Parameter(negative="")]
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Place = Annotated[str | None, Parameter(help="A run's folder: its query list and done units.")]
Sample = Annotated[
    int,
    Parameter(
        help="Archives of each kind to read, where no unit is done yet.",
        validator=validators.Number(gte=1),
    ),
]
_REBALANCE = (
    "Draw anew from the pairs of all generations, and pack them all; what was fetched is not "
    "fetched again."
)
_DRY_RUN = (
    "Only say what would be kept, and of which queries, for one cap or several: "
    "--set balance.cap_per_query=5000,20000."
)
_FULL = "Pack what all generations keep anew, as one set of shards."
Out = Annotated[
    str, Parameter(name="--out", help="The run's folder, local or s3://.", validator=_some)
]


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How the work is done; none of it changes a byte of what is made.

    Attributes:
        set_: Override a recipe's key, e.g. --set balance.cap_per_query=500; may be repeated.
        workers: Worker processes on this machine; by default one a core.
        runner: Do the units in local processes, or as tasks on a Ray cluster.
        address: The Ray cluster's address; "local" starts one on this machine.
        json: Say how it gets on as JSON lines.
        loopback: For tests and the demo only: HOSTS=127.0.0.1:PORT asks that server instead.
    """

    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = ()
    workers: Workers = None
    runner: Literal["local", "ray"] = "local"
    address: str = "local"
    json: Annotated[bool, Parameter(negative="")] = False
    loopback: Annotated[tuple[str, ...], Parameter(negative="", show=False)] = ()


DEFAULT = How()


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


def _loopback(pairs: tuple[str, ...]) -> dict[str, str]:
    mapped = dict(pair.partition("=")[::2] for pair in pairs)
    for hosts, server in mapped.items():
        if not re.fullmatch(r"127\.0\.0\.1:\d+", server):
            raise RecipeError(
                "only a server on loopback can stand in for hosts",
                where=f"--loopback {hosts}={server}",
                fix="write HOSTS=127.0.0.1:PORT",
            )
    return mapped


@contextlib.contextmanager
def _run(out: str, how: How) -> Iterator[Run]:
    from wit_builder import progress, runners, units

    cluster = how.address if how.runner == "ray" else None
    runner = runners.make_runner(how.workers or runners.default_workers(), cluster)
    try:
        with progress.for_terminal(as_json=how.json) as observer:
            yield units.Run(out, runner, observer)
    finally:
        runner.close()


def _build(
    recipe: str,
    out: str,
    how: How,
    until: Until,
    whole: Whole = "",
    *,
    only: frozenset[str] = frozenset(),
) -> None:
    from wit_builder import pipeline
    from wit_builder import recipe as recipes

    loaded = recipes.read(recipe, how.set_)
    with _run(out, how) as run:
        limited = replace(run, only=only)
        pipeline.Build(loaded, limited, _loopback(how.loopback), whole)(until)


def _print_rows(rows: list[tuple[str, str]]) -> None:
    """Print two columns; nothing is cut, and what came from the web is no markup."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


# --- the whole of it --------------------------------------------------------


@app.command(group=_WHOLE)
def demo(*, out: str = "demo-run", data: str = ".data", workers: Workers = None) -> None:
    """Build a data set from a small web, train a CLIP on it, and show what it learned.

    Args:
        out: Folder for all that is made.
        data: Folder of the demo's data; what is missing is downloaded into it.
        workers: Worker processes; by default one a core.
    """
    from wit_builder import demo as play

    play.run(out, data, workers)


@app.command(group=_WHOLE)
def build(
    recipe: Recipe,
    *,
    out: Out,
    rebalance: Annotated[bool, Parameter(help=_REBALANCE, negative="")] = False,
    how: How = DEFAULT,
) -> None:
    """Make a data set: query list, candidates, matched, balanced, fetched, packed, reported.

    What is done already is not done again: starting the same command again resumes.
    """
    _build(recipe, out, how, "report", "balance" if rebalance else "")
    report(out, how=how, again=False)


@app.command(group=_WHOLE)
def plan(recipe: Recipe, *, out: Place = None, sample: Sample = 1, how: How = DEFAULT) -> None:
    """Estimate what a build would cost: archives, bytes, core-hours, requests.

    A few archives are read here to measure it; nothing is kept.
    """
    from wit_builder import estimate, runners
    from wit_builder import recipe as recipes

    found = estimate.estimate(recipes.read(recipe, how.set_), out, sample)
    if how.json:
        print(msgspec.json.encode(found).decode())
    else:
        _print_rows(estimate.lines(found, how.workers or runners.default_workers()))


# --- stages -----------------------------------------------------------------

queries_app = App(name="queries", help="Build a query list, or look at one.", group=_STAGES)
app.command(queries_app)


@queries_app.command(name="build")
def queries_build(recipe: Recipe, *, out: Out, how: How = DEFAULT) -> None:
    """Make the query list of a recipe: ROOT/queries/queries.parquet and a summary."""
    from wit_builder.queries import build

    _build(recipe, out, how, "queries")
    summary = build.read_summary(out)
    for warning in summary.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not how.json:
        print(f"{summary.queries:,} queries; to look at them: wit queries show {out}")


@queries_app.command(name="show")
def queries_show(root: Root, query: str | None = None, /) -> None:
    """Show what a query list is made of, or why a query is in it or not."""
    from wit_builder import storage
    from wit_builder.queries import build, explain, show
    from wit_builder.tables import QUERIES

    if not storage.exists(storage.join(root, build.LIST)):
        fix = f"wit queries build RECIPE --out {root}"
        raise QueryListError("there is no query list yet", where=root, fix=fix)
    if query is not None:
        _print_rows(list(explain.explain(root, query)))
        return
    table = storage.read_parquet(storage.join(root, build.LIST), QUERIES.names)
    _print_rows(list(show.lines(table, build.read_summary(root))))


def _stage(name: Until, said: str) -> None:
    def command(recipe: Recipe, *, out: Out, how: How = DEFAULT) -> None:
        _build(recipe, out, how, name)

    command.__doc__ = f"{said}\n\nStages before it that are not done yet are done first."
    command.__name__ = name
    app.command(command, group=_STAGES)


_stage("crawl", "Take candidates, (image URL, text) pairs, from archives and sites.")
_stage("match", "Keep candidates that contain a query, one per URL.")


@app.command(group=_STAGES)
def balance(
    recipe: Recipe,
    *,
    out: Out,
    dry_run: Annotated[bool, Parameter(help=_DRY_RUN, negative="")] = False,
    how: How = DEFAULT,
) -> None:
    """Draw up to the cap's pairs per query: what the first round asks for.

    Stages before it that are not done yet are done first.
    """
    if not dry_run:
        _build(recipe, out, how, "balance")
        return
    from wit_builder import pipeline, what_if
    from wit_builder import recipe as recipes

    settings, caps = _caps(how.set_)
    loaded = recipes.read(recipe, settings)
    with _run(out, how) as run:
        build = pipeline.Build(loaded, run, _loopback(how.loopback))
        found = build.what_if(caps or [loaded.balance.cap_per_query])
    if how.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(what_if.lines(found)))
        print("if every picture could be had; a draw is a (pair, query)")


_LARGEST_CAP = 10**12


def _caps(settings: tuple[str, ...]) -> tuple[tuple[str, ...], list[int]]:
    """Return the settings without the caps to try, and these."""
    key = "balance.cap_per_query="
    others = tuple(s for s in settings if not s.startswith(key))
    tried = [v for s in settings if s.startswith(key) for v in s.removeprefix(key).split(",")]
    for value in tried:
        if not (value.strip().isdecimal() and 0 < int(value) <= _LARGEST_CAP):
            raise RecipeError(
                f"a cap is a whole number of pairs from 1 to {_LARGEST_CAP:,}, not {value!r}",
                where="--set balance.cap_per_query",
                fix="write e.g. --set balance.cap_per_query=5000,20000",
            )
    return others, sorted({int(value) for value in tried})


_stage("fetch", "Ask for the drawn images, round by round, until the draw is full.")


@app.command(group=_STAGES)
def pack(
    recipe: Annotated[str, Parameter(help=_RECIPE_OR_DOWNLOAD)],
    *,
    out: Out,
    full: Annotated[bool, Parameter(help=_FULL, negative="")] = False,
    how: How = DEFAULT,
) -> None:
    """Pack kept pairs into tar shards with manifest and block table.

    Stages before it that are not done yet are done first. Of a download nothing is asked for again:
    all its pairs are packed, into ROOT/g0/shards.
    """
    from wit_builder import storage
    from wit_builder.adopt import download

    if download.is_folder(recipe):
        _adopt(recipe, out, how)
        return
    if not storage.exists(recipe):
        raise RecipeError(
            "there is neither a recipe nor a download here",
            where=storage.redact(recipe),
            fix="name a recipe (TOML), or the folder that img2dataset downloaded to",
        )
    _build(recipe, out, how, "pack", "pack" if full else "")
    print(f"to report on what is packed now: wit report {out}", file=sys.stderr)


def _adopt(folder: str, out: str, how: How) -> None:
    from wit_builder.adopt import build

    settings = build.settings(how.set_)
    with _run(out, how) as run:
        counts = build.build(folder, run, settings)
    if how.json:
        print(msgspec.json.encode(counts).decode())
    else:
        _print_rows([(name, f"{count:,}") for name, count in counts.items()])


# --- look at what is there --------------------------------------------------


@app.command(group=_LOOK)
def report(
    root: Root,
    /,
    *,
    how: How = DEFAULT,
    again: Annotated[bool, Parameter(show=False)] = True,
) -> None:
    """Write the balance report of a run, and print its summary."""
    from wit_builder import storage
    from wit_builder.report import summary

    if again:
        if how.set_:
            raise RecipeError(
                "a report tells of what was built, by the recipe it was built with",
                where=f"--set {how.set_[0]}",
                fix="leave --set out; to build by other settings, use wit build",
            )
        summary.refuse_unbuilt(root)
        recipe = storage.join(root, "recipe.toml")
        _build(recipe, root, how, "report", only=frozenset({"report"}))
    if how.json:
        print(storage.read_bytes(storage.join(root, "report", "summary.json")).decode())
    else:
        _print_rows(summary.summary_rows(root))
        print(f"report: {storage.join(root, 'report', 'index.html')}")


@app.command(group=_LOOK)
def show(
    root: Root,
    query: Annotated[str, Parameter(help="In any spelling; quote it if it has spaces.")],
    /,
    *,
    as_json: AsJson = False,
) -> None:
    """Show one query: its counts at every stage, and sample pairs with what became of them."""
    from wit_builder.report import show as showing

    if as_json:
        print(msgspec.json.encode(showing.tell(root, query)).decode())
    else:
        _print_rows(showing.explain(root, query))


@app.command(group=_LOOK)
def verify(shards: str, /, *, workers: Workers = 1, as_json: AsJson = False) -> None:
    """Check every shard, member and digest of a data set; name each fault's place.

    Args:
        shards: The data set's folder, local or s3://.
        workers: Worker processes.
        as_json: Print the result as JSON.
    """
    from wit_builder.shards import verify as checking

    found = checking.verify(shards, workers or 1)
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


@app.command(group=_LOOK)
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


# --- entering and leaving ---------------------------------------------------


def _register_plugins() -> None:
    for entry in sorted(entry_points(group="wit.commands"), key=lambda e: e.name):
        app.command(entry.value, name=entry.name, group=_MODEL)


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> None:
    """Run the program, and leave with its exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    sys.exit(status(sys.argv[1:] if arguments is None else arguments))


def status(arguments: list[str]) -> int:
    """Run a command line and return its exit status; errors are printed in one line."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"wit: {' '.join(str(error).split())} -> wit --help", file=sys.stderr)
        return USAGE
    except WitError as error:
        print(f"wit: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for what Python flushes at exit
        return DONE
    except KeyboardInterrupt:
        print("wit: interrupted -> start the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    return DONE


_register_plugins()
