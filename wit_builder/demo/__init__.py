"""``wit demo``: the whole idea on real data that ships with packages, offline, in a few minutes.

A web of two dozen hosts runs on loopback and misbehaves like the real one. A query list is made
from WordNet and a Wikipedia excerpt; pages come from WARC files and from a live crawl; pairs are
matched, balanced, fetched in rounds, packed and reported; a small CLIP trains on the shards, and is
then asked to name pictures in a drawing style that it has never seen.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

from wit_builder import pipeline, progress, recipe, runners, sections, storage, units
from wit_builder.errors import DemoError, ShardFormatError
from wit_builder.report.summary import summary_rows
from wit_builder.shards.verify import verify

if TYPE_CHECKING:  # needs the demo's optional packages
    from wit_builder.demo import site

HERE = Path(__file__).parent
TEMPLATES = ("{}", "a picture of {}")


@dataclass(frozen=True)
class Size:
    """How large a demo is; tests have a smaller one.

    Attributes:
        concepts: how many things the web has pictures of; None for all.
        training: keys of the training recipe to change, as ``--set`` takes them.
        building: keys of the build's recipe to change, likewise.
    """

    concepts: int | None = None
    training: tuple[str, ...] = ()
    building: tuple[str, ...] = ()


FULL = Size()


def run(out: str, data: str, workers: int | None = None, size: Size = FULL) -> None:
    """Do it all, and print what came of it.

    Args:
        out: local folder for all that is made; what is there already is gone on from.
        data: folder of the demo's data; what is missing is downloaded into it.
        workers: worker processes; by default one a core.
        size: of the web and of the training.

    Raises:
        DemoError: the data cannot be had, or the web or the training did not run.
    """
    from wit_builder.demo import data as pictures
    from wit_builder.demo import fetch_data, site, warc

    if storage.is_remote(out):
        raise DemoError("the demo runs in a local folder", where=out, fix="wit demo --out demo-run")
    started = time.monotonic()
    fetch_data.fetch(data, fetch_data.FOR_DEMO)
    console = Console(highlight=False)
    console.print(f"wit demo: everything is made in [bold]{out}[/bold]")
    settings = site.Settings(data=data, concepts=size.concepts)
    web = site.plan(settings)
    archives = warc.write_warcs(str(Path(out, "web")), web)
    _build(out, settings, archives, workers or runners.default_workers(), size.building)
    shards = storage.join(out, "g0", "shards")
    if verify(shards).faults:
        raise ShardFormatError("the demo's shards are not whole", where=shards, fix="wit verify it")
    _train(out, shards, size)
    pictures.write_test_set(storage.join(out, "test"), web.concepts)
    _tell(console, out, _evaluate(out), time.monotonic() - started)


def _build(
    out: str, settings: site.Settings, archives: list[str], workers: int, keys: tuple[str, ...]
) -> None:
    from wit_builder.demo import fetch_data, site
    from wit_builder.demo.web import DemoWeb

    data = Path(settings.data).resolve()
    sources = [
        {"kind": "warc", "paths": [str(Path(a).resolve()) for a in archives]},
        {"kind": "site", "seeds": site.seeds(), "max_depth": 3, "max_pages": 2000},
    ]
    overrides = [
        f"queries.wordnet.path={_toml(str(data / fetch_data.WORDNET))}",
        f"queries.wikipedia.dumps={_toml([str(data / fetch_data.EXCERPT)])}",
        f"crawl.sources={_toml(sources)}",
        *keys,
    ]
    loaded = recipe.load(str(HERE / "recipe.toml"), sections.Recipe, overrides)
    runner = runners.make_runner(workers)
    try:
        with DemoWeb(settings) as web, progress.for_terminal() as observer:
            loopback = {"*.test": f"127.0.0.1:{web.port}"}
            pipeline.Build(loaded, units.Run(out, runner, observer), loopback)()
    finally:
        runner.close()


def _train(out: str, shards: str, size: Size) -> None:
    keys = (f"data.shards={_toml(shards)}", *size.training)
    overrides = [part for key in keys for part in ("--set", key)]
    _wit("train", str(HERE / "train.toml"), *overrides, "--out", storage.join(out, "model"))


def _evaluate(out: str) -> dict[str, Any]:
    results, test = storage.join(out, "eval"), storage.join(out, "test")
    where = ["--images", test, "--out", results]
    templates = [part for t in TEMPLATES for part in ("--template", t)]
    _wit("eval", storage.join(out, "model"), *where, *templates, "--json", quiet=True)
    found: dict[str, Any] = msgspec.json.decode(
        storage.read_bytes(storage.join(results, "results.json"))
    )
    return found


def _toml(value: Any) -> str:
    """Return a value as inline TOML (JSON is that, but for the colons of its objects)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return msgspec.json.encode(value).decode()


def _wit(*arguments: str, quiet: bool = False) -> None:
    """Run a command of ``wit`` in a process of its own: the library never imports torch."""
    command = [sys.executable, "-m", "wit_builder", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()  # it saves what it has, so that starting again goes on from there
        raise
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise DemoError(
            f"wit {arguments[0]} failed with status {status}",
            where=" ".join(["wit", *arguments]),
            fix="see its error above",
        )


def _tell(console: Console, out: str, results: dict[str, Any], seconds: float) -> None:
    table = Table(title="What happened", show_header=False, title_justify="left", box=None)
    for row in summary_rows(out):
        table.add_row(*row)
    shot = results["zero_shot"]
    classes = f"{shot['classes']:,} concepts drawn in a style that was held out"
    for name, score in shot["scores"].items():
        times = score["value"] / score["chance"]
        said = f"{score['value']:.1%}, chance {score['chance']:.2%}: {times:.0f} times chance"
        table.add_row(f"zero-shot {name}", said)
    table.add_row("", classes)
    console.print(table)
    report = Path(out, "report", "index.html").resolve()
    console.print(f"shards  {storage.join(out, 'g0', 'shards')}")
    console.print(f"model   {storage.join(out, 'model')}")
    named = Path(out, "eval", "index.html").resolve()
    console.print("open in a browser, what was gathered and what was learned:")
    for page in (report, named):
        console.print(f"        file://{page}", soft_wrap=True)
    console.print(f"done in {seconds:.0f} s; try: wit show {out} dog")
