"""What the contestants of the training benchmarks share: their input, and the clock on their steps.

A contestant (``train_ours``, ``train_peer``) is a process that wraps what feeds its loop in
``metered``. It takes the steps of its warm-up and says so; then it takes a portion of steps for
every line that it is sent, and says how long they took. So two of them can take turns, and no
start, import or compilation is in a figure. Nothing of ours is imported here, and little of
others': the peer's environment is another.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that CLIP was trained on, in [0, 1]."""

LEARNING_RATE = 1e-4
"""Of every step: what is measured does not depend on it."""

_START, _END, _WORDS = 49406, 49407, 49405
_SHORTEST = 3


class Setting(NamedTuple):
    """What a contestant trains, on what and how.

    Attributes:
        model: open_clip's name, or that of the file ``config``.
        config: JSON file with the model's config; none: open_clip's own.
        image_size, context_length: the model's.
        batch: pairs a step.
        precision: "fp32" or "bf16" (autocast).
        device: "cpu" or "cuda".
        feed: "memory": one batch in memory, for the peer pictures that are normalised floats;
            "bytes": the same, but the peer, as we, begins with bytes; "shipped": for the peer,
            its own synthetic data set; "shards": read from there.
        shards: folder of a finished data set.
        workers: processes that decode.
        compile: with torch.compile.
        checkpointing: activations are computed twice.
        warm_steps: that are not measured.
        steps: of a portion.
        threads: of torch on the CPU; 0: as it chooses.
        weights: file of the weights that both begin with: ours writes, the peer reads.
        profile: file for a profile of ours; none: nothing is profiled.
    """

    model: str
    config: str = ""
    image_size: int = 224
    context_length: int = 77
    batch: int = 32
    precision: str = "fp32"
    device: str = "cpu"
    feed: str = "memory"
    shards: str = ""
    workers: int = 0
    compile: bool = False
    checkpointing: bool = False
    warm_steps: int = 3
    steps: int = 3
    threads: int = 0
    weights: str = ""
    profile: str = ""

    @classmethod
    def read(cls, text: str) -> Setting:
        """Return the setting that ``written`` wrote."""
        return cls(**json.loads(text))

    def written(self) -> str:
        """Return it as JSON."""
        return json.dumps(self._asdict())


class Ready(NamedTuple):
    """What a contestant says after its warm-up.

    Attributes:
        versions: of what it runs on.
        device: its name.
        losses: of the warm-up's steps, where they say something.
        forward_flops: of a pair, where it is known.
        peak_flops: of the device, where it is known.
    """

    versions: dict[str, str]
    device: str
    losses: Sequence[float] = ()
    forward_flops: float | None = None
    peak_flops: float | None = None


class Portion(NamedTuple):
    """A portion of steps.

    Attributes:
        steps, images: how many.
        seconds: by the clock, the device having nothing left to do at both ends.
        cpu_s: of all threads of the process.
        waited_s: for data.
        memory_bytes: most that was allocated on the GPU since the warm-up, or resident on the CPU.
    """

    steps: int
    images: int
    seconds: float
    cpu_s: float
    waited_s: float
    memory_bytes: int

    @property
    def per_second(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def metered(
    batches: Iterable[Any],
    setting: Setting,
    ready: Callable[[], Ready],
    waited_s: Callable[[], float] | None = None,
) -> Iterator[Any]:
    """Yield batches for the warm-up, and then for a portion per line of the standard input.

    Args:
        batches: endless.
        setting: how many are a portion.
        ready: called after the warm-up.
        waited_s: tells how long data was waited for in all; None: the time that ``batches`` takes.
    """
    source = iter(batches)
    yield from islice(source, setting.warm_steps)
    _settle(setting.device)
    _forget_peak(setting.device)
    _say(ready())
    for _ in sys.stdin:
        yield from _portion(source, setting, waited_s)


def _portion(
    source: Iterator[Any], setting: Setting, waited_s: Callable[[], float] | None
) -> Iterator[Any]:
    waited, before = 0.0, waited_s() if waited_s else 0.0
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(setting.steps):
        asked = time.perf_counter()
        batch = next(source)
        waited += time.perf_counter() - asked
        yield batch
    _settle(setting.device)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    if waited_s:
        waited = waited_s() - before
    images = setting.steps * setting.batch
    _say(Portion(setting.steps, images, seconds, cpu_s, waited, _peak_bytes(setting.device)))


def _say(what: Ready | Portion) -> None:
    print(json.dumps(what._asdict()), flush=True)


def _settle(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == "cuda":
        import torch  # noqa: PLC0415 - the parent process, which imports this, can do without

        torch.cuda.synchronize()


def _forget_peak(device: str) -> None:
    if device == "cuda":
        import torch  # noqa: PLC0415 - see above

        torch.cuda.reset_peak_memory_stats()


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        import torch  # noqa: PLC0415 - see above

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def pixels(setting: Setting) -> npt.NDArray[np.uint8]:
    """Return random pictures [batch, side, side, 3], the same in every process."""
    side = setting.image_size
    shape = (setting.batch, side, side, 3)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def tokens(setting: Setting) -> npt.NDArray[np.int32]:
    """Return random texts [batch, context] of all lengths: start, words, end, zeros."""
    rng = np.random.default_rng(2)
    texts = rng.integers(1, _WORDS, (setting.batch, setting.context_length), np.int32)
    ends = rng.integers(_SHORTEST - 1, setting.context_length, setting.batch)
    places = np.arange(setting.context_length)
    texts[:, 0] = _START
    texts[places == ends[:, None]] = _END
    texts[places > ends[:, None]] = 0
    return texts


def device_name(device: str) -> str:
    """Return what the device calls itself."""
    if device == "cuda":
        import torch  # noqa: PLC0415 - see above

        return torch.cuda.get_device_name()
    return "CPU"
