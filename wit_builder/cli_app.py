"""What commands have in common: the program, its options, and how a command starts a build."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter, validators

from wit_builder import __version__
from wit_builder.errors import RecipeError

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from wit_builder.generations import Whole
    from wit_builder.pipeline import Until
    from wit_builder.units import Run

app = App(
    name="wit",
    version=__version__,
    help="From query lists to class-balanced image-text shards, and on to a trained CLIP.\n\n"
    "Exit status: 0 done, 1 failed, 2 a wrong command line, 130 interrupted: start again to go on.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
STAGES = Group("One stage of a build, and those before it", sort_key=2)
LOOK = Group("Look at what is there", sort_key=3)
WHOLE = Group("The whole of it", sort_key=1)
MODEL = Group("The model", sort_key=4)


def _some(_: object, place: str) -> None:
    if not place:  # as of an unset variable of the shell
        raise ValueError("name a folder")


Root = Annotated[str, Parameter(help="The run's folder, local or s3://.")]
Recipe = Annotated[str, Parameter(help="A recipe (TOML), local or s3://.")]
Workers = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
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


def loopback_map(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return which server on loopback stands in for which hosts.

    Raises:
        RecipeError: it is not on loopback.
    """
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
def running(out: str, how: How) -> Iterator[Run]:
    """Give a run whose units are done as asked; its workers end with it."""
    from wit_builder import progress, runners, units

    cluster = how.address if how.runner == "ray" else None
    runner = runners.make_runner(how.workers or runners.default_workers(), cluster)
    try:
        with progress.for_terminal(as_json=how.json) as observer:
            yield units.Run(out, runner, observer)
    finally:
        runner.close()


def build_until(
    recipe: str,
    out: str,
    how: How,
    until: Until,
    whole: Whole = "",
    *,
    only: frozenset[str] = frozenset(),
) -> None:
    """Do a recipe's stages up to one; of those not in ``only``, if that names some, nothing."""
    from wit_builder import pipeline
    from wit_builder import recipe as recipes

    loaded = recipes.read(recipe, how.set_)
    with running(out, how) as run:
        limited = replace(run, only=only)
        pipeline.Build(loaded, limited, loopback_map(how.loopback), whole)(until)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print two columns; nothing is cut, and what came from the web is no markup."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
