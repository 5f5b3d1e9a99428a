"""A training run from its recipe to its last checkpoint."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack

import msgspec
import torch

from wit_builder import storage
from wit_builder.errors import RecipeError
from wit_train import checkpoint, flops, memory, model, ranks, training
from wit_train.checkpoint import Checkpoints, Note
from wit_train.config import (
    TrainRecipe,
    bound_keys,
    common_keys,
    layout_of,
    pace_of,
    places,
    places_of,
    steps_of,
)
from wit_train.evaluate.in_training import Evaluation
from wit_train.held_out import HeldOut
from wit_train.meter import Meter
from wit_train.metrics import Row, TimeLeft
from wit_train.ranks import Ranks
from wit_train.records import Records
from wit_train.schedule import learning_rate
from wit_train.snapshot import State
from wit_train.step import refuse_damage, train_step
from wit_train.stopping import asked_to_stop
from wit_train.stream import Stream
from wit_train.transfer import Given, on_device
from wit_train.watch import Watch


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended.

    Attributes:
        step: steps taken in all.
        steps: steps it was to take.
        checkpoint: place of the last checkpoint's JSON; empty on ranks other than the first.
        interrupted: whether it was asked to stop; starting again goes on from there.
        made_way: whether SIGTERM alone asked, as an elastic agent does that will start it anew.
    """

    step: int
    steps: int
    checkpoint: str
    interrupted: bool
    made_way: bool = False


_COMPILING = 6
"""So many times longer may the first step take, where the towers are compiled in it."""

Show = Callable[[Row, float], None]
"""Told of every logged step, and of the seconds that are left."""


def train(
    recipe: TrainRecipe,
    out: str,
    show: Show | None = None,
    begun: Callable[[Stream], object] | None = None,
    allow: Collection[str] = (),
) -> Outcome:
    """Train until the last step or a request to stop; go on from what is in ``out``.

    SIGINT, SIGTERM and SIGUSR1 ask to stop: all ranks save after the step at hand, and return.

    Args:
        recipe: what to train on what.
        out: folder of the run: ``recipe.toml``, ``metrics.jsonl``, ``checkpoints/``; with several
            machines, one that all of them reach.
        show: called with every logged row, on the first rank.
        begun: called with the stream before it is read, on the first rank.
        allow: keys of the recipe that may differ from the run's beginning.

    Returns:
        How it ended; of no steps on a process that only waited beside those that train.

    Raises:
        TrainingError: the recipe does not fit the data, or the loss is not finite.
        CheckpointError: the last checkpoint in ``out`` is damaged, or is of another run.
        WitError: recipe, data or storage are not what they should be.
    """
    _check_deadlines(recipe)
    for place in places(recipe):
        storage.refuse_credentials(place)
    if recipe.pace.compute_threads:
        torch.set_num_threads(recipe.pace.compute_threads)
    timeout_s = recipe.distributed.timeout_s
    with ranks.joined(recipe.data.lanes, timeout_s) as own:
        if own is None:
            return Outcome(0, 0, "", interrupted=False)
        where = f"rank {own.rank}, {own.device}"
        with (
            memory.explained(recipe, where, own.world_size),
            Watch(own.store, own.rank, own.world_size, timeout_s) as watch,
        ):
            run = _Run(recipe, out, own, watch, allow)
            if own.rank == 0 and begun:
                begun(run.stream)
            return run.go(show if own.rank == 0 and show else lambda *_: None)


def _check_deadlines(recipe: TrainRecipe) -> None:
    if recipe.pace.deadline_s >= recipe.distributed.timeout_s:
        raise RecipeError(
            f"ranks give each other up after {recipe.distributed.timeout_s:g} s, before a read of "
            f"the data is given up ({recipe.pace.deadline_s:g} s)",
            where="distributed.timeout_s",
            fix="set it above pace.deadline_s",
        )


def open_stream(recipe: TrainRecipe, spec: model.Spec, own: Ranks) -> Stream:
    """Return the samples of a recipe, a rank's part of every batch."""
    return Stream(
        places_of(recipe.data),
        batch_size=recipe.data.batch_size,
        world_size=own.world_size,
        rank=own.rank,
        layout=layout_of(recipe),
        look=model.look_of(spec, recipe.data.augment),
        pace=pace_of(recipe.pace),
    )


class _Run:
    """A rank's part of a run that is under way."""

    def __init__(
        self, recipe: TrainRecipe, out: str, own: Ranks, watch: Watch, allow: Collection[str]
    ) -> None:
        spec = model.spec_of(recipe.model, recipe.loss)
        self.stream = open_stream(recipe, spec, own)
        self._recipe, self._out, self._ranks = recipe, out, own
        self._forward = _operations(spec)
        self._steps = steps_of(recipe, self.stream.order.samples)
        self._held_out = HeldOut(recipe, spec, own) if recipe.held_out.shards else None
        self._evaluation = Evaluation(recipe, spec)
        self._note = _note(recipe, spec, self.stream)
        self._checkpoints = Checkpoints(self._folder, recipe.log.keep_checkpoints)
        self._watch, self._done = watch, 0
        own.gathering = functools.partial(self._phase, "gathering")
        self._refuse_other_recipe()
        self._begun_from, self._done, state = self._last_checkpoint(allow)
        self._phase("first weights")
        self._training = training.begin(
            recipe, spec, own, out=out, phase=self._phase, afresh=not self._begun_from
        )
        self._saved = self._done if self._begun_from else -1  # on the first rank
        if self._begun_from:
            for part in training.restore(self._training, state, self._begun_from):
                _warn(f"the checkpoint has no {part}: it is begun afresh")
        self.stream.start_step = self._done
        if training.is_compiled(recipe, own.device):
            watch.timeout_s *= _COMPILING  # for the first step

    @property
    def _folder(self) -> str:
        return storage.join(self._out, "checkpoints")

    def _phase(self, what: str) -> None:
        self._watch.at(self._done, what)

    def _last_checkpoint(self, allow: Collection[str]) -> tuple[str, int, State]:
        """Return place, step and state of the last one that is whole; "" and 0 if there is none."""
        self._phase("checkpoint")
        found = checkpoint.newest(self._folder, _warn) if self._ranks.rank == 0 else None
        if found:
            changes = checkpoint.refuse_other_run(found.note, self._note, found.place, allow)
            for change in changes:
                _warn(f"changed since the checkpoint: {change}")
        own = (found.place, found.note.step, found.state) if found else ("", 0, {})
        place, step, state = self._ranks.broadcast(own, lambda: self._phase("checkpoint"))
        return str(place), int(step), state

    def _refuse_other_recipe(self) -> None:
        """See that all ranks were given the recipe and the data of the first.

        Raises:
            RecipeError: this rank was not.
        """
        own = common_keys(self._recipe) | self._note.bound | {"data": self._note.data}
        own |= self._evaluation.identity()
        first = self._ranks.broadcast(own)
        if other := [key for key in own | first if own.get(key) != first.get(key)]:
            raise RecipeError(
                f"not what the first rank was given: {', '.join(sorted(other))}",
                where=f"rank {self._ranks.rank}",
                fix="start all with the same recipe, options and data",
            )

    def go(self, show: Show) -> Outcome:
        """Take the steps that are left; save at the end, or where asked to stop."""
        stop = 0
        with ExitStack() as stack:
            checkpoints = stack.enter_context(self._checkpoints)
            records = stack.enter_context(Records(self._out, self._recipe, self._done, self._ranks))
            asked = stack.enter_context(asked_to_stop(self._watch.stopping))
            left = TimeLeft(self._steps, self._done)
            meter = Meter(self.stream, self._training, self._forward, left)
            batches = stack.enter_context(contextlib.closing(iter(self.stream)))
            given = on_device(batches, self._ranks.device)
            while self._done < self._steps and not stop:
                row = self._step(given, meter)
                if row:
                    records.add(row)
                    show(row, meter.seconds_left(self._done))
                checkpoints.check()
                if self._is_due(self._done, self._recipe.log.checkpoint_every_steps):
                    self._save(meter, records, last=self._done == self._steps)
                stop = self._ranks.agreed(flag=asked())
            if self._saved != self._done:
                self._save(meter, records, last=True)
            self._is_free(last=True)
            place = checkpoints.finish() or self._begun_from
        interrupted = self._done < self._steps
        made_way = interrupted and stop == ranks.MAKE_WAY
        return Outcome(self._done, self._steps, place, interrupted=interrupted, made_way=made_way)

    def _step(self, batches: Iterator[Given], meter: Meter) -> Row | None:
        """Take a step; return its row where one is due."""
        self._phase("waiting for data")
        given = next(batches)
        settings = self._recipe.optimiser
        rate = learning_rate(
            self._done,
            peak=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            steps=self._steps,
        )
        taken = train_step(self._training, given, rate, measured=self._is_seen(self._done + 1))
        self._done += 1
        self._watch.timeout_s = self._recipe.distributed.timeout_s
        meter.count(given.batch, taken)
        if not self._is_seen(self._done):
            return None
        self._phase("metrics")
        row = self._measured(meter.row(self._done, rate))
        meter.begin()
        return row

    def _measured(self, row: Row) -> Row:
        """Return a row with what is due to be measured on other data after its step."""
        loss = scores = None
        if self._held_out and self._is_held_out_due(row.step):
            loss = self._held_out.loss(self._training)
        if self._is_evaluation_due(row.step):
            scores = self._evaluation.scores(self._training)
        self._phase("metrics")
        return msgspec.structs.replace(row, held_out=loss, scores=scores)

    def _is_seen(self, step: int) -> bool:
        """Return whether a row is due after so many steps."""
        logged = self._is_due(step, self._recipe.log.every_steps)
        return logged or self._is_held_out_due(step) or self._is_evaluation_due(step)

    def _is_held_out_due(self, step: int) -> bool:
        return bool(self._held_out) and self._is_due(step, self._recipe.held_out.every_steps)

    def _is_evaluation_due(self, step: int) -> bool:
        return bool(self._evaluation) and self._is_due(step, self._recipe.evaluation.every_steps)

    def _is_due(self, step: int, every_steps: int) -> bool:
        return step % every_steps == 0 or step == self._steps

    def _save(self, meter: Meter, records: Records, *, last: bool) -> None:
        """Begin to save, if losses and weights are finite."""
        self._phase("metrics")
        meter.settle(self._done)
        refuse_damage(self._training, self._done)
        if self._ranks.rank == 0 and self._is_free(last=last):
            note = msgspec.structs.replace(self._note, step=self._done)
            self._checkpoints.save(note, training.state_of(self._training))
            records.publish()
            self._saved = self._done

    def _is_free(self, *, last: bool) -> bool:
        """Return whether the last checkpoint is published, after a wait that others can bear.

        Other ranks wait meanwhile, and give this one up in the end; unless it is the ``last``.
        """
        timeout_s = self._recipe.distributed.timeout_s
        alone, look_s = last or self._ranks.world_size == 1, min(10.0, timeout_s / 4)
        for _ in itertools.count() if alone else range(2):
            self._phase("checkpoint")
            if not self._checkpoints.is_under_way(look_s):
                return True
        _warn(f"no checkpoint after step {self._done}: the one before is still being published")
        return False


def _operations(spec: model.Spec) -> float:
    """Return the operations of a pair's forward pass, tried without any weights.

    Raises:
        RecipeError: a model of this config cannot be run.
    """
    try:
        return flops.forward_flops(spec)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise RecipeError(
            f"a model of this config cannot be run: {model.first_line(error)}",
            where="model",
            fix="compare with one of open_clip's",
        ) from error


def _note(recipe: TrainRecipe, spec: model.Spec, stream: Stream) -> Note:
    bound = bound_keys(recipe)
    # as it is without what has keys of its own
    plain = model.spec_of(msgspec.structs.replace(recipe.model, patch_dropout=0.0)).config
    bound["model.config"] = msgspec.json.encode(plain, order="sorted").decode()
    return Note(
        step=0,
        data=stream.base,
        bound=bound,
        model=spec.config,
        precision=recipe.precision,
        revision=stream.revision,
    )


def _warn(what: str) -> None:
    sys.stderr.write(f"warning: {what}\n")
