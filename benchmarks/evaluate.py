"""Zero-shot classification on CPU: `wit eval` beside clip_benchmark's command.

    python benchmarks/evaluate.py [--model tiny] [--pictures 10000] [--turns 3]
    python benchmarks/evaluate.py --model ViT-B-32 --pictures 1000

Same exported model, same test set in clip_benchmark's layout on local disk, 100 classes, the
``simple`` templates (7), or ``--templates imagenet`` (80). Each is started anew in every turn, as
a user would: `wit eval --out`, which writes its page and tables too; clip_benchmark with its batch
of 64. Told are the whole of it, from the start of the process to its end, and the classification
in it, when the model is loaded and the set is open: text classifier, reading, decoding, tower,
scores.

clip_benchmark's settings are tried once each: processes that decode, float32 (``--no_amp``) and its
default, bfloat16. The fastest in float32 goes on; that in bfloat16 too if it is faster yet, beside
ours with ``--precision bf16``. "again" is with the text classifier of an earlier run: ours finds it
itself, clip_benchmark is given it (``--load_clfs``).

Asked: not slower than clip_benchmark. Scores of both in float32 must be equal but for pictures at
which rounding decides.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import evaluate_command, evaluate_inputs
from benchmarks.evaluate_command import Clocked
from benchmarks.web_turns import versions

WORKERS = (0, 1, 2)
SCORES = {"top1": "acc1", "top5": "acc5", "mean_per_class": "mean_per_class_recall"}
"""Ours, and what clip_benchmark calls them."""

_REPOSITORY = Path(__file__).parent.parent
_LOOK_EVERY_S = 0.1
_TOLD_LETTERS = 3000


class Contestant(NamedTuple):
    """A command, and the file that it leaves.

    Attributes:
        name: in tables.
        words: of the command line.
        output: JSON with its scores.
        cache: ``XDG_CACHE_HOME``; none: an empty folder of its own each time.
        beside: name of the one of ours that it is compared with.
    """

    name: str
    words: Sequence[str]
    output: Path
    cache: Path | None = None
    beside: str = "ours"


class Turn(NamedTuple):
    """What one start of a contestant took.

    Attributes:
        seconds: from the start of the process to its end.
        cpu_s: of all its processes.
        memory_bytes: peak of each process (VmHWM), summed; what they share is in each.
        classification: the part after imports and loading.
        scores: by our names.
    """

    seconds: float
    cpu_s: float
    memory_bytes: int
    classification: Clocked
    scores: dict[str, float]


class Inputs(NamedTuple):
    """What all are given, and a folder for what they leave."""

    model: str
    test_set: str
    folder: Path

    def ours(self, name: str, cache: Path | None = None, precision: str = "fp32") -> Contestant:
        """Return `wit eval`."""
        out = self.folder / "ours"
        words = f"ours eval {self.model} --images {self.test_set} --out {out}"
        words += f" --precision {precision}"
        return Contestant(name, words.split(), out / "results.json", cache, name)

    def peer(self, workers: int, *, amp: bool) -> Contestant:
        """Return clip_benchmark with some settings; it leaves its text classifier, too."""
        name = f"{'bfloat16' if amp else 'float32'}, {workers} workers"
        out = self.folder / "peer.json"
        words = f"""peer eval --model local-dir:{self.model} --pretrained none --dataset wds/set
            --dataset_root {self.test_set} --output {out} --batch_size 64 --quiet
            --num_workers {workers} --save_clf {self.folder / f"classifier-{workers}-{amp}.pt"}"""
        beside = "ours, bfloat16" if amp else "ours"
        words_in_all = [*words.split(), *([] if amp else ["--no_amp"])]
        return Contestant(name, words_in_all, out, beside=beside)

    def again(self, peer: Contestant) -> Contestant:
        """Return clip_benchmark with the text classifier that it left."""
        at = peer.words.index("--save_clf")
        words = [*peer.words[:at], "--load_clfs", *peer.words[at + 1 :]]
        again = f"{peer.beside}, again"
        return peer._replace(name=f"{peer.name}, again", words=words, beside=again)


def taken(contestant: Contestant) -> Turn:
    """Start a contestant, and return what it took.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as said:
        cache = str(contestant.cache or scratch)
        quiet = {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": cache}
        command = [sys.executable, "-m", "benchmarks.evaluate_command", *contestant.words]
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=_REPOSITORY, env=os.environ | quiet, stdout=said, stderr=subprocess.STDOUT
        )
        peaks, (status, usage) = _watched(process.pid)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise SystemExit(f"{contestant.name} failed:\n{output[-_TOLD_LETTERS:]}")
    cpu_s = usage.ru_utime + usage.ru_stime
    peak = max(sum(peaks.values()), usage.ru_maxrss << 10)
    clocked, scores = evaluate_command.read(output), scores_in(contestant.output)
    return Turn(seconds, cpu_s, peak, clocked, scores)


def _watched(pid: int) -> tuple[dict[int, int], tuple[int, resource.struct_rusage]]:
    """Return peaks of a process and those below it by id, its status, and its use of resources."""
    peaks: dict[int, int] = {}
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return peaks, (status, usage)
        peaks |= dict(_peaks(pid))
        time.sleep(_LOOK_EVERY_S)


def _peaks(pid: int) -> Iterator[tuple[int, int]]:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = {c for task in tasks for c in (task / "children").read_text().split()}
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return
    if found := re.search(r"VmHWM:\s+(\d+)", status):  # one that has ended has none
        yield pid, int(found[1]) << 10
    for child in children:
        yield from _peaks(int(child))


def scores_in(place: Path) -> dict[str, float]:
    """Return the scores in a file of ours, or of clip_benchmark's, by our names."""
    found = json.loads(place.read_text(encoding="utf-8"))
    if "metrics" in found:
        place.unlink()  # so that the next one cannot be taken for it
        return {ours: found["metrics"][theirs] for ours, theirs in SCORES.items()}
    shutil.rmtree(place.parent)  # likewise
    return {ours: found["zero_shot"]["scores"][ours]["value"] for ours in SCORES}


def best(inputs: Inputs, pictures: int) -> list[Contestant]:
    """Return clip_benchmark at its best settings, each of which is tried once."""
    tried: dict[bool, list[tuple[float, Contestant]]] = {False: [], True: []}
    # a tar is one worker's
    for workers in (n for n in WORKERS if n <= -(-pictures // evaluate_inputs.PER_TAR)):
        for amp, found in tried.items():
            one = inputs.peer(workers, amp=amp)
            turn = taken(one)
            found.append((turn.seconds, one))
            print(f"tried {one.name}: {turn.seconds:.1f} s", flush=True)
    exact, fast = (min(found, key=lambda pair: pair[0]) for found in tried.values())
    return [exact[1], *([fast[1]] if fast[0] < exact[0] else [])]


def table(turns: dict[str, list[Turn]], beside: dict[str, str], pictures: int) -> Iterator[str]:
    """Yield a line for each contestant: medians, and how many times longer than ours it takes.

    That is the median of the turns' ratios: what else the machine does in a turn, it does to both.

    Args:
        turns: of each contestant.
        beside: which of ours each is compared with.
        pictures: of the test set.
    """
    yield f"{'':32} {'in all':^31} {'classification alone':^31}"
    head = f"{'seconds':>8} {'CPU-s':>7} {'MiB':>7} {'/ours':>6}"
    yield f"{'':32} {head} {'seconds':>9} {'CPU-s':>7} {'img/s':>7} {'/ours':>6}"
    for name, own in turns.items():
        pairs = list(zip(own, turns[beside[name]], strict=True))
        whole = statistics.median(its.seconds / mine.seconds for its, mine in pairs)
        parts = [(its.classification, mine.classification) for its, mine in pairs]
        part = statistics.median(its.seconds / mine.seconds for its, mine in parts)
        seconds = statistics.median(its.seconds for its, _ in parts)
        yield (
            f"{name:32} {statistics.median(t.seconds for t in own):8.1f} "
            f"{statistics.median(t.cpu_s for t in own):7.1f} "
            f"{max(t.memory_bytes for t in own) / 2**20:7,.0f} {whole:6.2f} {seconds:9.1f} "
            f"{statistics.median(its.cpu_s for its, _ in parts):7.1f} "
            f"{pictures / seconds:7,.0f} {part:6.2f}"
        )


def compared(inputs: Inputs, options: argparse.Namespace) -> None:
    """Let all take turns, and print the table, and their scores."""
    cache = inputs.folder / "cache"
    peers = best(inputs, options.pictures)
    ours = [inputs.ours("ours"), inputs.ours("ours, again", cache)]
    if len(peers) > 1:
        coarse = "ours, bfloat16"
        ours += [inputs.ours(coarse, None, "bf16"), inputs.ours(f"{coarse}, again", cache, "bf16")]
    for one in ours:
        taken(one)  # fills the caches
    all_of_them = [*ours, *peers, *(inputs.again(peer) for peer in peers)]
    turns: dict[str, list[Turn]] = {one.name: [] for one in all_of_them}
    for _ in range(options.turns):
        for one in all_of_them:
            turns[one.name].append(taken(one))
    beside = {one.name: one.beside for one in all_of_them}
    print("\n".join(table(turns, beside, options.pictures)))
    for name, own in turns.items():
        scores = ", ".join(f"{score} {value:.4%}" for score, value in own[-1].scores.items())
        print(f"{name}: {scores}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--model", default="tiny", help="tiny, or the name of one of open_clip's")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--templates", choices=("simple", "imagenet"), default="simple")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    from wit_train.evaluate.prompts import templates_of  # noqa: PLC0415 - torch, not for --help

    packages = ("torch", "open_clip_torch", "clip_benchmark", "webdataset", "pillow", "simplejpeg")
    print(versions(*packages), f"{os.cpu_count()} CPUs", sep=", ")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        templates = [t.replace("{}", "{c}") for t in templates_of([], options.templates, [])]
        test_set = evaluate_inputs.test_set(
            folder / "set", options.data, options.pictures, templates
        )
        model = evaluate_inputs.exported(options.model, folder)
        print(f"{options.model}, {options.pictures:,} pictures, {len(templates)} templates")
        compared(Inputs(model, test_set, folder), options)


if __name__ == "__main__":
    main()
