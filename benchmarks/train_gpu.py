"""Training on a GPU: our trainer beside open_clip's.

    python benchmarks/train_gpu.py --data FOLDER --peers-python PATH --out results.md
        [--cases synthetic,shards,mfu] [--models B-32,B-16,L-14] [--turns 3] [--steps 60]
        [--batch 512] [--workers CORES] [--no-shipped] [--device cpu --smoke --no-compile]

Needs one GPU of 80 GB (an H100), as many cores as feed it, and two environments. It says what is
missing and measures nothing without them. Cases:

* ``synthetic``: images a second of a whole step (copy to the device, both towers, loss, gradients,
  AdamW) at a local batch of 512 in bf16 with torch.compile, for B/32, B/16 and L/14. Ours takes
  uint8 pictures from memory, as from its stream. open_clip's ``main`` runs with ``--torchcompile
  --local-loss --gather-with-grad --precision amp_bf16 --dataset-type synthetic``, twice: with
  normalised pictures ready in pinned memory instead of a loader (``open_clip``), and as it ships
  (``open_clip, shipped``), where its processes make each picture anew. Asked: at least 1.0 times
  the first, which has the harder figure. Peak memory of the GPU is that of torch's allocator.
* ``shards``: the same for B/32 from shards on local disk: our stream, and its webdataset pipeline
  with its defaults; both with as many processes as there are cores, both with the crop of its
  transform. Asked: at least 1.3 times; and at most 5 % of our time waiting for data.
* ``mfu``: ours at B/16: 3 x the FLOPs of a forward pass over the dense bf16 peak of the GPU (989
  TFLOPS for an H100 SXM), nothing that is computed twice being counted. Asked: at least 35 %. A
  profile of five steps is written beside the results.

Each turn starts both anew, one after the other, for a GPU may not hold both; the warm-up, which
compiles, is not measured. From shards, it is long enough to use up what loaders had made before.
A model that does not fit is measured again with activations computed twice, in both, and is marked
so. Results of other cases that stand beside ``--out`` (as JSON) are kept: a case can have a call of
its own.

Environments, built beforehand where the machine has no network:

* ours: ``wit-builder[train]`` and torch, which starts this script; or its packages in a folder on
  ``PYTHONPATH``, with this repository and its ``train`` folder.
* open_clip's, ``--peers-python``: ``open_clip_torch[training]==3.3.0`` and the same torch as ours,
  which brings webdataset 0.2.86 and pandas. The path may be that of a script that sets
  ``PYTHONPATH`` and calls another Python with its arguments.

``--data`` is a finished data set, or a folder in which one is made: pictures of 256 pixels, 32,768
of them (800 MB, 3 minutes of CPU; open_clip wants a shard of 1,024 for each process at least).
``--device cpu --smoke`` goes through all of it on a CPU with a model of two layers, to see that it
works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import open_clip

from benchmarks import train_turns
from benchmarks.stream_shards import shards
from benchmarks.train_meter import Setting
from benchmarks.train_turns import PEERS_PACKAGES, OutOfMemory, Runs, ours, peer
from wit_builder.shards.layout import DATASET
from wit_train.flops import utilisation

PEER, SHIPPED = "open_clip", "open_clip, shipped"
MODELS = {
    "B-32": "ViT-B-32-quickgelu",
    "B-16": "ViT-B-16-quickgelu",
    "L-14": "ViT-L-14-quickgelu",
}
_SMOKE = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 16,
        "width": 32,
        "layers": 2,
        "head_width": 16,
    },
    "text_cfg": {"vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
_SAMPLES, _SMOKE_SAMPLES = 32_768, 256
_PROBE = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
_GIB = 1 << 30
Result = dict[str, Any]


class Bench(NamedTuple):
    """What is measured, and where."""

    options: argparse.Namespace
    folder: Path
    """For files of a run."""

    def setting(self, model: str) -> Setting:
        """Return what all contestants share."""
        options = self.options
        config = open_clip.get_model_config(MODELS[model])
        setting = Setting(
            model=MODELS[model],
            image_size=config["vision_cfg"]["image_size"],
            context_length=config["text_cfg"]["context_length"],
            batch=options.batch,
            precision="bf16",
            device=options.device,
            workers=options.workers,
            compile=options.compile,
            warm_steps=15,
            steps=options.steps,
        )
        return self._small(setting, model) if options.smoke else setting

    def _small(self, setting: Setting, model: str) -> Setting:
        config = self.folder / f"smoke-{model}.json"
        config.write_text(json.dumps(_SMOKE), encoding="utf-8")
        small = setting._replace(model=config.stem, config=str(config), image_size=32)
        return small._replace(batch=8, warm_steps=1, steps=2, workers=1, context_length=77)

    def runs(self, contestants: Callable[[Setting], Iterator[Any]], setting: Setting) -> Result:
        """Return what contestants say; with activations computed twice, if they must be."""
        for checkpointing in (False, True):
            weights = self.folder / "weights.pt"
            weights.unlink(missing_ok=True)
            chosen = setting._replace(checkpointing=checkpointing, weights=str(weights))
            try:
                runs = train_turns.apart(list(contestants(chosen)), self.options.turns)
            except OutOfMemory as error:
                print(f"{setting.model}: out of memory ({error}), {checkpointing=}", flush=True)
                continue
            train_turns.refuse_other_work(runs)
            return {"checkpointing": checkpointing, **_told(runs, setting)}
        raise SystemExit(f"{setting.model} does not fit the GPU at a batch of {setting.batch}")


def _told(runs: dict[str, Runs], setting: Setting) -> Result:
    """Return what is kept of runs."""
    return {
        "setting": setting._asdict(),
        "device": runs["ours"].ready.device,
        "peak_flops": runs["ours"].ready.peak_flops,
        "forward_flops": runs["ours"].ready.forward_flops,
        "contestants": {
            name: {
                "per_second": one.per_second,
                "waiting": one.waiting,
                "memory_bytes": one.memory_bytes,
                "times_faster": train_turns.ratio(runs, name),
                "versions": one.ready.versions,
                "losses": one.ready.losses,
                "portions": [portion._asdict() for portion in one.portions],
            }
            for name, one in runs.items()
        },
    }


# --- cases -------------------------------------------------------------------


def synthetic(bench: Bench, model: str) -> Result:
    """Return how fast whole steps are from memory."""

    def contestants(setting: Setting) -> Iterator[Any]:
        yield ours(setting)
        yield peer(PEER, bench.options.peers_python, setting)
        if not bench.options.no_shipped:
            shipped = setting._replace(feed="shipped")
            yield peer(SHIPPED, bench.options.peers_python, shipped)

    return bench.runs(contestants, bench.setting(model))


def from_shards(bench: Bench, model: str) -> Result:
    """Return how fast steps are from shards."""
    options = bench.options
    data = options.data
    if not (data / DATASET).exists():
        data = Path(shards(data, _SMOKE_SAMPLES if options.smoke else options.samples))
    # its loader's processes hold two batches each, made while the model was compiled
    ahead = 2 * options.workers
    setting = bench.setting(model)._replace(feed="shards", shards=str(data.resolve()))
    if not options.smoke:
        setting = setting._replace(warm_steps=ahead + 15, steps=max(options.steps, 4 * ahead))

    def contestants(setting: Setting) -> Iterator[Any]:
        yield ours(setting)
        yield peer(PEER, options.peers_python, setting)

    return bench.runs(contestants, setting)


def mfu(bench: Bench, model: str) -> Result:
    """Return how fast ours is alone, with a profile of its last turn."""
    page = bench.options.out.with_suffix(".profile.md").resolve()
    setting = bench.setting(model)._replace(profile=str(page))
    return bench.runs(lambda chosen: iter([ours(chosen)]), setting)


CASES: dict[str, Callable[[Bench, str], Result]] = {
    "synthetic": synthetic,
    "shards": from_shards,
    "mfu": mfu,
}
_MODELS_OF = {"synthetic": list(MODELS), "shards": ["B-32"], "mfu": ["B-16"]}


# --- the page ----------------------------------------------------------------


def page(results: dict[str, Result]) -> Iterator[str]:
    """Yield the lines of the results in Markdown."""
    for case in CASES:
        found = {key.partition(" ")[2]: value for key, value in results.items() if _case(key, case)}
        if found:
            yield from (f"## {case}", "")
            yield from _table(found, case)
            yield ""


def _case(key: str, case: str) -> bool:
    return key.partition(" ")[0] == case


def _table(found: dict[str, Result], case: str) -> Iterator[str]:
    first = next(iter(found.values()))
    yield f"{first['device']}, batch {first['setting']['batch']}, bf16; medians of the turns."
    yield ""
    yield "| model | trainer | images/s | ours is faster | MFU | waiting for data | peak GiB | |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for model, result in found.items():
        for name, one in result["contestants"].items():
            cells = [
                model,
                name,
                f"{one['per_second']:,.0f}",
                "" if name == "ours" else f"{one['times_faster']:.2f} times",
                _utilisation(result, one["per_second"]),
                f"{one['waiting']:.1%}",
                f"{one['memory_bytes'] / _GIB:.1f}",
                "activations computed twice" if result["checkpointing"] else "",
            ]
            yield f"| {' | '.join(cells)} |"
    yield ""
    yield _versions(first)
    if asked := list(_asked(found, case)):
        yield from ("", *asked)


def _utilisation(result: Result, per_second: float) -> str:
    forward, peak = result["forward_flops"], result["peak_flops"]
    return f"{utilisation(forward, per_second, peak):.1%}" if peak else ""


def _versions(result: Result) -> str:
    said = {name: one["versions"] for name, one in result["contestants"].items() if name != SHIPPED}
    return "; ".join(
        f"{name}: {', '.join(f'{package} {version}' for package, version in versions.items())}"
        for name, versions in said.items()
    )


def _asked(found: dict[str, Result], case: str) -> Iterator[str]:
    """Yield what was asked of a case beside what came out."""
    for model, result in found.items():
        mine = result["contestants"]["ours"]
        its = result["contestants"].get(PEER, mine)
        if case == "synthetic":
            yield f"* {model}: asked at least 1.00 times, found {its['times_faster']:.2f}"
        elif case == "shards":
            yield f"* {model}: asked at least 1.30 times, found {its['times_faster']:.2f}"
            yield f"* {model}: asked at most 5 % of waiting, found {mine['waiting']:.1%}"
        else:
            found_mfu = _utilisation(result, mine["per_second"]) or "unknown: no peak is known"
            yield f"* {model}: asked at least 35 % of the peak, found {found_mfu}"


# --- what is needed ----------------------------------------------------------


def refuse(options: argparse.Namespace) -> None:
    """Refuse to begin without what is needed.

    Raises:
        SystemExit: a GPU or the peer's environment is missing.
    """
    needs = "train_gpu needs a CUDA GPU of 80 GB (one H100)"
    if options.device == "cuda" and not _says(sys.executable, _PROBE):
        raise SystemExit(f"{needs}: torch sees none here; --device cpu --smoke tries the script")
    if options.cases == ["mfu"]:
        return
    if not options.peers_python:
        raise SystemExit(f"--peers-python: of an environment with {PEERS_PACKAGES} and torch")
    said = _says(options.peers_python, "import open_clip_train.main; print('fine')")
    if said != "fine":
        raise SystemExit(f"{options.peers_python}: lacks {PEERS_PACKAGES} (see --help)\n{said}")
    if options.device == "cuda" and not _says(options.peers_python, _PROBE):
        raise SystemExit(f"{needs}: that of {options.peers_python} sees none")


def _says(python: str, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return (done.stderr if done.returncode else done.stdout).strip().rpartition("\n")[2]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--peers-python", default="")
    parser.add_argument("--out", type=Path, default=Path("results.md"))
    parser.add_argument("--cases", type=_listed(CASES), default=list(CASES))
    parser.add_argument("--models", type=_listed(MODELS), default=list(MODELS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--samples", type=int, default=_SAMPLES)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--no-shipped", action="store_true", help="leave its own loader out")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, two steps")
    return parser.parse_args()


def _listed(known: dict[str, Any]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{sorted(unknown)}: not among {', '.join(known)}")
        return names

    return parse


def main() -> None:
    options = _options()
    refuse(options)
    kept = options.out.with_suffix(".json")
    results: dict[str, Result] = json.loads(kept.read_text()) if kept.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        for case in options.cases:
            for model in (name for name in _MODELS_OF[case] if name in options.models):
                results[f"{case} {model}"] = CASES[case](bench, model)
                kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
                options.out.write_text("\n".join(page(results)), encoding="utf-8")
                print(f"{case} {model}: done", flush=True)
    print("\n".join(page(results)))


if __name__ == "__main__":
    main()
