"""A training run from its recipe to its last checkpoint."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

import msgspec
import torch
import xxhash

from wit_builder import recipe as recipes
from wit_builder import storage
from wit_builder.errors import TrainingError
from wit_train import checkpoint, metrics, model
from wit_train.checkpoint import Note
from wit_train.config import TrainRecipe, bound_keys, layout_of, pace_of, places_of, steps_of
from wit_train.metrics import Row
from wit_train.schedule import learning_rate
from wit_train.step import Training, optimiser_for, train_step
from wit_train.stream import Batch, Look, Stream


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended.

    Attributes:
        step: steps taken in all.
        steps: steps it was to take.
        checkpoint: place of the last checkpoint's JSON.
        interrupted: whether it was asked to stop; starting again goes on from there.
    """

    step: int
    steps: int
    checkpoint: str
    interrupted: bool


Show = Callable[[Row, float], None]
"""Told of every logged step, and of the seconds that are left."""


def train(
    recipe: TrainRecipe,
    out: str,
    show: Show | None = None,
    begun: Callable[[Stream], object] | None = None,
) -> Outcome:
    """Train until the last step or an interrupt (SIGINT, SIGTERM); go on from what is in ``out``.

    Args:
        recipe: what to train on what.
        out: folder of the run: ``recipe.toml``, ``metrics.jsonl``, ``checkpoints/``.
        show: called with every logged row.
        begun: called with the stream, before it is read.

    Raises:
        TrainingError: the recipe does not fit the data, or the loss is not finite.
        CheckpointError: the last checkpoint in ``out`` is damaged, or is of another run.
        WitError: recipe, data or storage are not what they should be.
    """
    if recipe.pace.compute_threads:
        torch.set_num_threads(recipe.pace.compute_threads)
    spec = model.spec_of(recipe.model)
    stream = _open_stream(recipe, spec)
    steps = steps_of(recipe, stream.order.samples)
    training = _begin(recipe, spec)
    note = Note(
        step=0,
        data=stream.base,
        bound=bound_keys(recipe),
        model=spec.config,
        precision=recipe.precision,
        revision=stream.revision,
    )
    start = _resume(storage.join(out, "checkpoints"), training, note)
    stream.start_step = start
    storage.publish_bytes(storage.join(out, "recipe.toml"), recipes.dump(recipe).encode())
    if begun:
        begun(stream)
    return _Run(training, stream, note, steps, out).go(start, show or (lambda *_: None))


def _begin(recipe: TrainRecipe, spec: model.Spec) -> Training:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = model.build(spec, recipe.seed).to(device).train()
    return Training(network, optimiser_for(network, recipe.optimiser), device, recipe)


def _resume(folder: str, training: Training, expected: Note) -> int:
    """Return the next step to take, the state of the last checkpoint being loaded."""
    place = checkpoint.latest(folder)
    if place is None:
        return 0
    checkpoint.refuse_other_run(checkpoint.read_note(place), expected, place)
    return checkpoint.load(place, _parts(training)).step


def _parts(training: Training) -> dict[str, checkpoint.Stateful]:
    return {"model": training.model, "optimiser": training.optimiser}


def _open_stream(recipe: TrainRecipe, spec: model.Spec) -> Stream:
    return Stream(
        places_of(recipe.data),
        batch_size=recipe.data.batch_size,
        layout=layout_of(recipe),
        look=Look(
            image_size=spec.image_size,
            context_length=spec.context_length,
            augment=recipe.data.augment,
            clean=spec.clean,
        ),
        pace=pace_of(recipe.pace),
    )


class _Run:
    """A run that is under way."""

    def __init__(
        self, training: Training, stream: Stream, note: Note, steps: int, out: str
    ) -> None:
        self._training, self._stream, self._note = training, stream, note
        self._steps, self._out = steps, out
        self._saved = ""

    def go(self, start: int, show: Show) -> Outcome:
        """Take the steps from ``start`` on."""
        log, done = self._training.recipe.log, start
        journal = metrics.Journal(storage.join(self._out, "metrics.jsonl"), start)
        meter = _Meter(self._stream)
        with _asked_to_stop() as asked, contextlib.closing(iter(self._stream)) as batches:
            while done < self._steps and not asked():
                batch = next(batches)
                rate = self._rate(done)
                loss = train_step(self._training, batch, rate)
                done += 1
                meter.count(batch)
                if done % log.every_steps == 0 or done == self._steps:
                    row = self._row(batch, float(loss), rate, meter)
                    journal.add(row)
                    show(row, meter.seconds_left(self._steps - done))
                if done % log.checkpoint_every_steps == 0:
                    self._save(done, journal)
        if not self._saved.endswith(f"{done:08d}.json"):
            self._save(done, journal)
        return Outcome(done, self._steps, self._saved, interrupted=done < self._steps)

    def _rate(self, step: int) -> float:
        settings = self._training.recipe.optimiser
        return learning_rate(
            step,
            peak=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            steps=self._steps,
        )

    def _row(self, batch: Batch, loss: float, rate: float, meter: _Meter) -> Row:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss}",
                where=f"step {batch.step}",
                fix="lower optimiser.learning_rate; start again to go on from the last checkpoint",
            )
        pairs_per_s, waiting, substituted = meter.since_last()
        return Row(
            step=batch.step + 1,
            loss=loss,
            logit_scale=round(float(self._training.model.logit_scale.detach().exp()), 4),
            learning_rate=rate,
            pairs_per_s=round(pairs_per_s, 1),
            data_wait=round(waiting, 4),
            substituted=substituted,
            sample_ids=xxhash.xxh3_64_hexdigest(batch.sample_ids.tobytes()),
        )

    def _save(self, step: int, journal: metrics.Journal) -> None:
        folder = storage.join(self._out, "checkpoints")
        note = msgspec.structs.replace(self._note, step=step)
        keep = self._training.recipe.log.keep_checkpoints
        self._saved = checkpoint.save(folder, note, _parts(self._training), keep)
        journal.publish()


class _Meter:
    """Pairs and seconds, between logged rows and in all."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._began = self._last = time.perf_counter()
        self._waited_before, self._pairs, self._substituted, self._steps = 0.0, 0, 0, 0

    def count(self, batch: Batch) -> None:
        self._pairs += len(batch.images)
        self._substituted += batch.substituted
        self._steps += 1

    def since_last(self) -> tuple[float, float, int]:
        """Return pairs per second, share of time spent waiting, substitutes; begin anew."""
        now, waited = time.perf_counter(), self._stream.stats.waited_s
        seconds = max(now - self._last, 1e-9)
        out = (self._pairs / seconds, (waited - self._waited_before) / seconds, self._substituted)
        self._last, self._waited_before, self._pairs, self._substituted = now, waited, 0, 0
        return out

    def seconds_left(self, steps: int) -> float:
        return (time.perf_counter() - self._began) / max(1, self._steps) * steps


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether SIGINT or SIGTERM came; a second SIGINT ends at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        asked = True

    try:
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us handles signals
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
