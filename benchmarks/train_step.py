"""Seconds per step of training on CPU: our trainer beside open_clip's.

    python benchmarks/train_step.py --peers-python PYTHON [--turns 5] [--threads 2] [--models ...]

Same model, same weights at first, same batch in memory, fp32, same number of threads. open_clip's
own ``main`` runs, with its own loop and options. Both live at once and take a few steps in turn;
the losses of the first steps are compared, so that both are known to do the same work.

Our step begins with bytes. open_clip's begins with floats, which processes of its loader have made
and normalised before; so ours does what its step need not. ``open_clip, from bytes`` has that work
in its step as well. Asked: not slower than ``open_clip``.

PYTHON is that of an environment with ``open_clip_torch[training]==3.3.0`` and the same torch as
ours (``uv venv PEER && uv pip install -p PEER 'open_clip_torch[training]==3.3.0' torch==...``).
Without it, ours is timed alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import open_clip

from benchmarks import train_turns
from benchmarks.train_meter import Setting
from benchmarks.train_turns import PEERS_PACKAGES, Contestant, Runs
from benchmarks.web_turns import versions

_TINY = Path(__file__).parent.parent / "train" / "recipes" / "tiny.toml"


class Model(NamedTuple):
    """A model, and how many pairs and steps of it a portion has."""

    config: dict[str, Any]
    batch: int
    steps: int


def models() -> dict[str, Model]:
    """Return the models: the tiny recipe's ResNet, a small ViT, and CLIP's ViT-B/32."""
    tiny = tomllib.loads(_TINY.read_text(encoding="utf-8"))["model"]
    config = tiny.get("config") or open_clip.get_model_config(tiny["name"])
    named = {name: open_clip.get_model_config(name) for name in ("ViT-S-32", "ViT-B-32-quickgelu")}
    return {
        "tiny": Model(config, 64, 8),
        "ViT-S-32": Model(named["ViT-S-32"], 32, 3),
        "ViT-B-32-quickgelu": Model(named["ViT-B-32-quickgelu"], 32, 2),
    }


def contestants(setting: Setting, peers_python: str) -> Iterator[Contestant]:
    """Yield ours, and open_clip with floats given and from bytes."""
    yield train_turns.ours(setting)
    if peers_python:
        yield train_turns.peer("open_clip", peers_python, setting)
        from_bytes = setting._replace(feed="bytes")
        yield train_turns.peer("open_clip, from bytes", peers_python, from_bytes)


def measured(name: str, model: Model, options: argparse.Namespace) -> dict[str, Runs]:
    """Return what all contestants say of a model."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / f"{name}-benchmark.json"
        config.write_text(json.dumps(model.config), encoding="utf-8")
        setting = Setting(
            model=config.stem,
            config=str(config),
            image_size=model.config["vision_cfg"].get("image_size", 224),
            context_length=model.config["text_cfg"].get("context_length", 77),
            batch=model.batch,
            steps=model.steps,
            threads=options.threads,
            compile=options.compile,
            weights=str(Path(folder) / "weights.pt"),
        )
        runs = train_turns.together(list(contestants(setting, options.peers_python)), options.turns)
    train_turns.refuse_other_work(runs)
    return runs


def table(runs: dict[str, Runs]) -> Iterator[str]:
    """Yield a line for each contestant: medians, and how many times faster ours is."""
    head = f"{'s a step':>9} {'CPU-s':>9} {'pairs/s':>9} {'this/ours':>10} {'peak MiB':>9}"
    yield f"{'':24} {head}"
    for name, one in runs.items():
        yield (
            f"{name:24} {one.step_s:9.3f} {one.step_cpu_s:9.3f} {one.per_second:9.1f} "
            f"{train_turns.ratio(runs, name):10.2f} {one.memory_bytes / 2**20:9,.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peers-python", default="")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="*", default=list(models()))
    parser.add_argument("--compile", action="store_true", help="both with torch.compile")
    options = parser.parse_args()
    print(versions("torch", "open_clip_torch"), f"{options.threads} threads", sep=", ")
    if not options.peers_python:
        print(f"open_clip: left out; give --peers-python, of an environment with {PEERS_PACKAGES}")
    for name in options.models:
        model = models()[name]
        print(f"\n{name}, {model.batch} pairs a step, fp32", flush=True)
        runs = measured(name, model, options)
        print("\n".join(table(runs)), flush=True)
        for one, (ready, _) in runs.items():
            print(f"{one}: {ready.versions}, first losses {[round(x, 4) for x in ready.losses]}")


if __name__ == "__main__":
    main()
