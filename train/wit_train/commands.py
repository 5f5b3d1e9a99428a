"""``wit train`` and ``wit eval``: loaded by the ``wit`` program when they are asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

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
    pretrained: str = "",
    precision: Literal["", "fp32", "bf16", "fp16"] = "",
    images: str = "",
    names: str = "",
    template: Annotated[list[str] | None, Parameter(negative=())] = None,
    templates: str = "",
    compare_prompts: Annotated[bool, Parameter(negative="")] = False,
    pairs: str = "",
    train: str = "",
    validation: str = "",
    few_shot: str = "",
    overlap: Annotated[list[str] | None, Parameter(negative=())] = None,
    threshold: float | None = None,
    distance: int = 10,
    out: str = "",
    processes: int = 0,
    json: AsJson = False,
) -> None:
    """Measure a model: zero-shot, retrieval, linear probes, overlap with what it was trained on.

    A test set is a folder of class folders, a list of PICTURE<tab>CLASS or PICTURE<tab>CAPTION, a
    folder in clip_benchmark's layout (FOLDER/test, FOLDER/train), or a data set of shards; local or
    remote.

    Args:
        model: folder of a run, JSON of a checkpoint, or a folder of wit export; with --pretrained
            the name of one of open_clip's models; or its local-dir:FOLDER, hf-hub:NAME.
        pretrained: tag or file of weights, of an open_clip model.
        precision: of its activations; by default a run's own, and of others fp32 on CPU, fp16 on
            a GPU.
        images: test set with classes, for zero-shot classification.
        names: file of its classes, a name a line, or JSON mapping folders to names; or imagenet.
        template: such as "a photo of a {}"; may be given several times.
        templates: file of templates, one a line; or imagenet, simple. By default the test set's
            own, or else the bare name.
        compare_prompts: measure every template alone, too.
        pairs: test set with captions, for retrieval.
        train: set to train a linear probe on, which --images judges.
        validation: set to choose its penalty by; by default a fifth of the training set.
        few_shot: also train on so many pictures of each class, such as 1,2,4,8,16.
        overlap: shards that were trained on, in which to look for the pictures of --images; may be
            given several times.
        threshold: least cosine of two pictures that count as one; by default measured.
        distance: most bits by which the perceptual hashes of two such pictures may differ.
        out: folder for results.json, predictions.parquet, and a page, index.html.
        processes: on this machine; by default one for each GPU, or one.
        json: print the results as JSON.
    """
    need_torch("wit eval")
    asked = {
        "model": model,
        "pretrained": pretrained,
        "precision": precision,
        "images": images,
        "names": names,
        "template": template or [],
        "templates": templates,
        "compare_prompts": compare_prompts,
        "pairs": pairs,
        "train": train,
        "validation": validation,
        "few_shot": _numbers(few_shot, "--few-shot"),
        "overlap": overlap or [],
        "threshold": threshold,
        "distance": distance,
        "out": out,
    }
    from wit_train import evaluating

    evaluating.evaluate(asked, processes, as_json=json)


def _numbers(text: str, option: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        found = [0]
    if any(number < 1 for number in found):
        raise TrainingError(f"{text!r} is no list of numbers", where=option, fix="such as 1,2,4")
    return found


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
