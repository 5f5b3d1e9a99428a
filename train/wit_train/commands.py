"""``wit train`` and ``wit eval``: loaded by the ``wit`` program when they are asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from wit_builder import recipe as recipes
from wit_builder import storage
from wit_builder.errors import MissingPartError, RecipeError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Collection

    from wit_train.config import TrainRecipe
    from wit_train.stream import Stream

AsJson = Annotated[bool, Parameter(negative="")]

AllowChange = Annotated[list[str] | None, Parameter("--allow-change", negative=())]

INTERRUPTED = 130
"""Exit status of a run that was asked to stop, saved, and can go on."""


def train(
    recipe: str,
    *,
    out: str = "",
    set_: Annotated[list[str] | None, Parameter("--set", negative=())] = None,
    allow_change: AllowChange = None,
    processes: int = 0,
    nodes: str = "1",
    rendezvous: str = "",
    json: AsJson = False,
) -> None:
    """Train a CLIP on shards; start again to go on from the last checkpoint.

    Args:
        recipe: TOML file, such as train/recipes/tiny.toml.
        out: folder of the run, local or remote; without it the recipe's own.
        set_: key.path=value, over the recipe's; may be given several times.
        allow_change: key of the recipe in which a continued run may differ from its beginning; may
            be given several times.
        processes: on this machine; by default one for each GPU, or one.
        nodes: machines that start this command, or the fewest and the most, such as 2:8.
        rendezvous: HOST:PORT of one of several machines, where they find each other.
        json: write each logged step as JSON.
    """
    need_torch()
    from wit_train.config import TrainRecipe

    settings = recipes.load(recipe, TrainRecipe, set_ or ())
    folder = out or settings.out
    if not folder:
        raise RecipeError("where shall the run go?", where="out", fix="give --out FOLDER")
    from wit_train import launch  # not before the recipe is known to be good: it imports torch

    if launch.is_wanted(processes, nodes):
        same = [recipe, "--out", folder]
        same += [word for change in set_ or () for word in ("--set", change)]
        same += [word for key in allow_change or () for word in ("--allow-change", key)]
        status = launch.start(
            same + ["--json"] * json, processes=processes, nodes=nodes, rendezvous=rendezvous
        )
        raise SystemExit(status)
    _train_here(settings, folder, allow_change or (), as_json=json)


def _train_here(
    settings: TrainRecipe, folder: str, allowed: Collection[str], *, as_json: bool
) -> None:
    """Train in this process, be it alone or one of several."""
    from wit_builder.shards.read import read_info
    from wit_train import launched, loop
    from wit_train.config import places_of, steps_of
    from wit_train.metrics import for_terminal

    folders = places_of(settings.data)
    listed = [folders] if isinstance(folders, str) else folders
    steps = steps_of(settings, sum(read_info(place).samples for place in listed))
    with for_terminal(steps, as_json=as_json) as shown:
        outcome = loop.train(settings, folder, shown.show, _tell_memory, allowed)
    launched.tell(interrupted=outcome.interrupted, made_way=outcome.made_way)
    if os.environ.get("RANK", "0") != "0":
        return
    if outcome.interrupted:
        fix = "start again with the same --out to go on"
        print(f"stopped after step {outcome.step:,} of {outcome.steps:,}; {fix}", file=sys.stderr)
        # to an elastic agent anything but 0 is a failure, after which it would start anew
        raise SystemExit(0 if "TORCHELASTIC_RUN_ID" in os.environ else INTERRUPTED)
    print(storage.redact(outcome.checkpoint))


def _tell_memory(stream: Stream) -> None:
    gigabytes = stream.memory_bytes / 1e9
    print(f"the stream takes at most {gigabytes:.2f} GB of shared memory", file=sys.stderr)


def evaluate(
    model: str,
    *,
    images: str = "",
    names: str = "",
    template: Annotated[list[str] | None, Parameter(negative=())] = None,
    shards: str = "",
    out: str = "",
    json: AsJson = False,
) -> None:
    """Measure a trained model: zero-shot classification (--images), retrieval (--shards), or both.

    Args:
        model: folder of a run, or the JSON of one of its checkpoints.
        images: folder of class folders, or a list with lines of picture, tab, class.
        names: file of all classes: a name a line, or JSON mapping folders to names.
        template: such as "a photo of a {}"; may be given several times; by default the bare name.
        shards: folder of a finished data set that was not trained on.
        out: file for the results as JSON.
        json: print the results as JSON.
    """
    need_torch()
    from wit_train import evaluate as measure
    from wit_train import labels

    if not (images or shards):
        raise TrainingError("evaluate on what?", fix="give --images or --shards")
    labelled = labels.read(images, names) if images else None
    judged = measure.load(model)
    results: dict[str, Any] = {}
    if labelled:
        results["zero_shot"] = measure.zero_shot(judged, labelled, template or ["{}"])
    if shards:
        results["retrieval"] = measure.retrieval(judged, shards)
    text = msgspec.json.format(msgspec.json.encode(results)) + b"\n"
    if out:
        storage.publish_bytes(out, text)
    print(text.decode(), end="") if json else _print_table(results)


def _print_table(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("", no_wrap=True), "score", "chance", "times", "pictures", "classes")
    for task, result in results.items():
        for name, score in result.scores.items():
            table.add_row(
                f"{task} {name}".replace("_", " "),
                f"{score.value:.2%}",
                f"{score.chance:.3%}",
                f"{score.value / score.chance:.0f}",
                f"{result.pictures:,}",
                f"{result.classes:,}" if result.classes else "",
            )
    Console().print(table)


def need_torch(who: str = "training") -> None:
    """Check that torch is there, before anything imports it.

    Raises:
        MissingPartError: it is not, or open_clip is not.
    """
    # torch's threads wait for each other by spinning, which takes the cores from the threads that
    # decode, and from whatever else runs: throughput was seen to fall to a fifth
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for package in ("torch", "open_clip"):
        if importlib.util.find_spec(package) is None:
            raise MissingPartError(
                f"{who} needs the package {package}", fix="pip install 'wit-builder[train]'"
            )
