"""Figures of the steps taken, brought from the device only where a row is due."""

from __future__ import annotations

import math
import time

import torch
import xxhash

from wit_builder.errors import TrainingError
from wit_train import flops
from wit_train.metrics import Row, TimeLeft
from wit_train.step import Taken
from wit_train.stream import Batch, Stream
from wit_train.training import Training


class Meter:
    """Losses, pairs and seconds of all ranks, since the row before."""

    def __init__(self, stream: Stream, training: Training, forward: float, left: TimeLeft) -> None:
        """Begin to count; ``forward`` are the operations of a pair's forward pass."""
        self._stream, self._training, self._left, self._forward = stream, training, left, forward
        peak = flops.peak_flops(training.ranks.device)
        self._peak = (peak or 0.0) * training.ranks.world_size
        self._pending: list[Taken] = []
        self._settled = [math.nan, math.nan, math.nan]
        self._sample_ids = torch.empty(0, dtype=torch.int64)
        self.begin()

    def begin(self) -> None:
        """Count steps and seconds from now on."""
        self._since, self._waited = time.perf_counter(), self._stream.stats.waited_s
        self._pairs = self._substituted = 0

    def count(self, batch: Batch, taken: Taken) -> None:
        """Add a step; nothing waits for the device."""
        self._pending.append(taken)
        self._sample_ids = torch.from_numpy(batch.sample_ids)
        self._pairs += len(batch.images)
        self._substituted += batch.substituted

    def settle(self, step: int) -> None:
        """Wait for the steps so far, whose last is this one; every rank must ask.

        Raises:
            TrainingError: a loss is not finite.
        """
        if not self._pending:
            return
        columns = [torch.stack(column) for column in zip(*self._pending, strict=True)]
        losses, norms, scales = self._training.ranks.mean(torch.stack(columns)).tolist()
        first = step - len(losses) + 1
        self._settled, self._pending = [losses[-1], norms[-1], scales[-1]], []
        for number, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss}",
                    where=f"step {first + number}",
                    fix="start again with a lower optimiser.learning_rate (and --allow-change "
                    "optimiser.learning_rate), to go on from the last checkpoint",
                )

    def row(self, step: int, rate: float) -> Row:
        """Return a row over the steps since ``begin``; every rank must ask.

        Args:
            step: how many are done.
            rate: learning rate of the last.

        Raises:
            TrainingError: a loss is not finite.
        """
        self.settle(step)
        loss, norm, scale = self._settled
        seconds = max(time.perf_counter() - self._since, 1e-9)
        waited = (self._stream.stats.waited_s - self._waited) / seconds
        ranks = self._training.ranks
        of_ranks = torch.tensor([[self._pairs, self._substituted, waited]], dtype=torch.float64)
        pairs, substituted, waits = ranks.all_rows(of_ranks).unbind(1)
        rate_of_pairs = float(pairs.sum()) / seconds
        sample_ids = ranks.all_rows(self._sample_ids).numpy()
        return Row(
            step=step,
            loss=loss,
            logit_scale=round(scale, 4),
            learning_rate=rate,
            grad_norm=norm if math.isfinite(norm) else None,
            pairs_per_s=round(rate_of_pairs, 1),
            data_wait=round(float(waits.max()), 4),
            mfu=self._mfu(rate_of_pairs),
            substituted=int(substituted.sum()),
            sample_ids=xxhash.xxh3_64_hexdigest(sample_ids.tobytes()),
        )

    def _mfu(self, pairs_per_s: float) -> float | None:
        if not self._peak:
            return None
        return round(flops.utilisation(self._forward, pairs_per_s, self._peak), 4)

    def seconds_left(self, step: int) -> float:
        """Return how long the rest of the run will take, by its latest rows."""
        return self._left.after(step)
