"""``wit``, the one program: every command is a thin door to a function of the library.

Exit status: 0 done, 1 failed (one line says what, where, and what to do), 2 wrong usage, 130
interrupted (start the same command again to go on).
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, CycloptsError, Parameter, validators

from wit_builder import cli_shards, interrupts
from wit_builder.cli_app import (
    DEFAULT,
    LOOK,
    MODEL,
    STAGES,
    WHOLE,
    AsJson,
    How,
    Out,
    Recipe,
    Root,
    Workers,
    app,
    build_until,
    loopback_map,
    print_rows,
    running,
)
from wit_builder.errors import QueryListError, RecipeError, WitError

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from wit_builder.pipeline import Until

__all__ = ["app", "main", "status"]

DONE, FAILED, USAGE = 0, 1, 2

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


# --- the whole of it --------------------------------------------------------


@app.command(group=WHOLE)
def demo(*, out: str = "demo-run", data: str = ".data", workers: Workers = None) -> None:
    """Build a data set from a small web, train a CLIP on it, and show what it learned.

    Args:
        out: Folder for all that is made.
        data: Folder of the demo's data; what is missing is downloaded into it.
        workers: Worker processes; by default one a core.
    """
    from wit_builder import demo as play

    play.run(out, data, workers)


@app.command(group=WHOLE)
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
    build_until(recipe, out, how, "report", "balance" if rebalance else "")
    report(out, how=how, again=False)


@app.command(group=WHOLE)
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
        print_rows(estimate.lines(found, how.workers or runners.default_workers()))


# --- stages -----------------------------------------------------------------

queries_app = App(name="queries", help="Build a query list, or look at one.", group=STAGES)
app.command(queries_app)


@queries_app.command(name="build")
def queries_build(recipe: Recipe, *, out: Out, how: How = DEFAULT) -> None:
    """Make the query list of a recipe: ROOT/queries/queries.parquet and a summary."""
    from wit_builder.queries import build

    build_until(recipe, out, how, "queries")
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
        print_rows(list(explain.explain(root, query)))
        return
    table = storage.read_parquet(storage.join(root, build.LIST), QUERIES.names)
    print_rows(list(show.lines(table, build.read_summary(root))))


def _stage(name: Until, said: str) -> None:
    def command(recipe: Recipe, *, out: Out, how: How = DEFAULT) -> None:
        build_until(recipe, out, how, name)

    command.__doc__ = f"{said}\n\nStages before it that are not done yet are done first."
    command.__name__ = name
    app.command(command, group=STAGES)


_stage("crawl", "Take candidates, (image URL, text) pairs, from archives and sites.")
_stage("match", "Keep candidates that contain a query, one per URL.")


@app.command(group=STAGES)
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
        build_until(recipe, out, how, "balance")
        return
    from wit_builder import pipeline, what_if
    from wit_builder import recipe as recipes

    settings, caps = _caps(how.set_)
    loaded = recipes.read(recipe, settings)
    with running(out, how) as run:
        build = pipeline.Build(loaded, run, loopback_map(how.loopback))
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
cli_shards.register()


# --- look at what is there --------------------------------------------------


@app.command(group=LOOK)
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
        build_until(recipe, root, how, "report", only=frozenset({"report"}))
    if how.json:
        print(storage.read_bytes(storage.join(root, "report", "summary.json")).decode())
    else:
        print_rows(summary.summary_rows(root))
        print(f"report: {storage.join(root, 'report', 'index.html')}")


@app.command(group=LOOK)
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
        print_rows(showing.explain(root, query))


# --- entering and leaving ---------------------------------------------------


def _register_plugins() -> None:
    for entry in sorted(entry_points(group="wit.commands"), key=lambda e: e.name):
        app.command(entry.value, name=entry.name, group=MODEL)


def main(arguments: list[str] | None = None) -> None:
    """Run the program, and leave with its exit status."""
    interrupts.heed()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        code = status(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # another, while the first was being told
        code = interrupts.STATUS
    try:
        print(end="", flush=True)  # what is not printed by now would be lost when a signal comes
    except BrokenPipeError:
        _discard_output()
    interrupts.leave_from_now_on(code)
    sys.exit(code)


def status(arguments: list[str]) -> int:
    """Run a command line and return its exit status; errors are printed in one line."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except SystemExit as own:  # of a command that has a status of its own
        if not isinstance(own.code, int):
            raise
        return own.code
    except CycloptsError as error:
        print(f"wit: {' '.join(str(error).split())} -> wit --help", file=sys.stderr)
        return USAGE
    except WitError as error:
        print(f"wit: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        _discard_output()
        return DONE
    except KeyboardInterrupt:
        print(interrupts.SAID, file=sys.stderr)
        return interrupts.STATUS
    return DONE


def _discard_output() -> None:
    """Let Python flush at exit what is left to nobody: whoever read it has seen enough."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for as long as the process


_register_plugins()
