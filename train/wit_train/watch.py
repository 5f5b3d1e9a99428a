"""A thread that sees to it that no process waits for ever: stuck, orphaned, or told to stop.

A process that is stuck in a collective or in CUDA cannot be unwound: Python's own signal handlers
do not even run. So the thread ends the process (``os._exit``), having said which rank keeps the
others waiting, where, and since when. Whoever started the processes starts them anew, from the last
checkpoint.

Every rank takes the same path, so that the one to blame is the one that is furthest behind: with
the lowest step; in it, doing what it does alone while others wait in a collective; then, with the
fewest phases begun. They tell each other through the store of the process group, over a connection
of the watch's own: whoever waits on the training's would hold it up.

This needs the interpreter's lock: a rank that is stuck in C with the lock held, or stopped, or
whose host is gone, says nothing itself; it is named by the others.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Self

import msgspec

from wit_builder.errors import TrainingError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_PERIOD_S = 5.0
"""Between looks; a fraction of the timeout where that is short."""

_PATIENCE_S = 2.0
"""For one visit to the store, whose host may be gone."""

_SILENT_S = 30.0
"""A rank whose last report is so old is dead, or stopped. More than clocks of hosts differ."""

_GRACE_S = 20.0
"""From a signal to stop to the end of a step: torchrun sends SIGKILL 30 s after SIGTERM."""

_NAMED = 8
"""Ranks that are told in full."""

_ALONE = frozenset({"starting", "waiting for data", "checkpoint", "evaluation"})
"""What a rank does without the others; all else may be a wait for one of them."""

_BETWEEN_STEPS = frozenset({"checkpoint", "held-out loss", "evaluation", "gathering"})
"""What comes after a step's end."""


class Report(msgspec.Struct, frozen=True):
    """Where a rank is, as it told the others.

    Attributes:
        step: that it is in.
        phase: how many phases of that step it has begun before this one.
        what: it does.
        still_s: for how long already.
        host: name of its machine.
        pid: its process there.
        unix_s: when it told this.
    """

    step: int
    phase: int
    what: str
    still_s: float
    host: str
    pid: int
    unix_s: float


class Lookout:
    """Knows where a rank is, and at each look ends the process if that has to be.

    Attributes:
        timeout_s: after which a phase is given up; may be changed.
        period_s: between looks.
    """

    def __init__(
        self,
        store: Store | None,
        rank: int,
        world_size: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Begin with nothing under way.

        Args:
            store: of the process group; None in a world of one.
            rank: of this process.
            world_size: how many ranks train.
            timeout_s: after which a phase is given up.
            clock: in seconds.
            leave: ends the process with a status.
        """
        self._rank, self._world_size, self.timeout_s = rank, world_size, timeout_s
        self._clock, self._leave = clock, leave
        self.period_s = min(_PERIOD_S, timeout_s / 4)
        self._board = _Noticeboard(store if world_size > 1 else None, world_size)
        self._place = self._seen = (0, 0, "starting")
        self._still_s, self._looked = 0.0, clock()
        self._stop_by: tuple[float, int] | None = None
        self._host, self._pid = socket.gethostname(), os.getpid()
        # set by torchrun, whose death would leave us behind
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def at(self, step: int, what: str) -> None:
        """Take note of what the training does next; costs 0.1 us."""
        last = self._place
        self._place = (step, last[1] + 1 if step == last[0] else 0, what)

    def stopping(self, grace_s: float = _GRACE_S) -> None:
        """Take note of a signal to stop: the step under way must end within ``grace_s``.

        Without torchrun nobody sends SIGKILL after it, and the step has all the time it needs.
        """
        if self._stop_by is None and self._parent is not None:
            self._stop_by = (self._clock() + grace_s, self._place[0])

    def look(self) -> None:
        """Tell the others where this rank is; end the process if it can do no good any more."""
        self._measure()
        self._board.put(self._rank, self._report())
        if self._parent is not None and os.getppid() != self._parent:
            self._end(_orphaned(self._rank, self._parent))
        elif self._overdue():
            self._end(_not_stopped(self._rank, self._report()))
        elif self._still_s >= self.timeout_s:
            self._look_around()

    def _measure(self) -> None:
        # in looks: a process that was stopped as a whole (Ctrl-Z, a paused machine) is not stuck
        now = self._clock()
        if self._place is self._seen:
            self._still_s += min(now - self._looked, 2 * self.period_s)
        else:
            self._seen, self._still_s = self._place, 0.0
        self._looked = now

    def _report(self) -> Report:
        step, phase, what = self._seen
        still_s = round(self._still_s, 1)
        return Report(step, phase, what, still_s, self._host, self._pid, time.time())

    def _overdue(self) -> bool:
        if self._stop_by is None:
            return False
        deadline, step = self._stop_by
        if self._place[0] != step or self._place[2] in _BETWEEN_STEPS:
            self._stop_by = None  # the step's end was reached: the loop saves and ends
            return False
        return self._clock() >= deadline

    def _look_around(self) -> None:
        told = self._board.all()
        if told is None:
            self._end(_cut_off(self._rank, self._report()))
            return
        reports = {**told, self._rank: self._report()}
        mine = self._rank in _behind(reports, self._world_size)
        # whoever is stuck itself has the stack that tells why: let it speak first
        if mine or self._still_s >= self.timeout_s + 3 * self.period_s:
            self._end(verdict(reports, self._rank, self._world_size, time.time()))

    def _end(self, why: TrainingError) -> None:
        stack = "".join(f"  {line}\n" for line in _main_stack())
        text = f"wit: {why}\nrank {self._rank} is here, innermost first:\n{stack}"
        try:
            with contextlib.suppress(OSError):  # whoever read it is gone
                os.write(2, text.encode())  # past all locks that the stuck thread may hold
        finally:
            self._leave(1)


class Watch(Lookout):
    """A lookout in a thread of its own, from when it is made until it is closed.

    Made in the main thread, it hears of SIGTERM and SIGINT by itself if the process is one of
    torchrun's, even while the main thread is stuck, provided that they have handlers.
    """

    def __init__(
        self,
        store: Store | None,
        rank: int,
        world_size: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Begin to watch; the arguments are those of ``Lookout``."""
        super().__init__(store, rank, world_size, timeout_s, clock, leave)
        self._heard, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._hears_signals = _ring_on_signals(self._bell.fileno())
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        if self._hears_signals:
            signal.set_wakeup_fd(-1)
            self._hears_signals = False
        with contextlib.suppress(OSError):  # closed before
            self._bell.send(b"\0")
        self._thread.join(2 * _PATIENCE_S)
        self._bell.close()
        self._heard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            self.look()
            if select.select([self._heard], [], [], self.period_s)[0]:
                numbers = self._heard.recv(64)
                if 0 in numbers:
                    return
                # others, such as Slurm's SIGUSR1, are not followed by SIGKILL so soon
                if {signal.SIGTERM, signal.SIGINT} & set(numbers):
                    self.stopping(_GRACE_S)


def _ring_on_signals(fd: int) -> bool:
    """Have each signal's number written to ``fd``; return whether that could be arranged."""
    if threading.current_thread() is not threading.main_thread():
        return False
    before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    if before == -1:
        return True
    signal.set_wakeup_fd(before)  # somebody else's
    return False


class _Noticeboard:
    """The ranks' reports in the store; a store that does not answer costs a bounded time once."""

    def __init__(self, store: Store | None, world_size: int) -> None:
        self._store = store.clone() if store is not None else None
        if self._store is not None:
            self._store.set_timeout(timedelta(seconds=_PATIENCE_S))
        self._world_size = world_size
        self._visit: threading.Thread | None = None

    def put(self, rank: int, report: Report) -> None:
        store = self._store
        if store is not None:
            text = msgspec.json.encode(report).decode()
            self._within_patience(lambda: store.set(_key(rank), text))

    def all(self) -> dict[int, Report] | None:
        """Return what the ranks told last, by rank; None where the store does not answer."""
        store, found = self._store, dict[int, Report]()
        if store is None:
            return found

        def read() -> None:
            ranks = list(range(self._world_size))
            if not store.check([_key(rank) for rank in ranks]):
                ranks = [rank for rank in ranks if store.check([_key(rank)])]
            # at once, because all ranks may ask at this moment
            for rank, text in zip(ranks, store.multi_get(list(map(_key, ranks))), strict=True):
                found[rank] = msgspec.json.decode(text, type=Report)

        return found if self._within_patience(read) else None

    def _within_patience(self, visit: Callable[[], object]) -> bool:
        """Return whether a visit to the store came to its end."""
        done = threading.Event()

        def run() -> None:
            with contextlib.suppress(RuntimeError):  # torch's DistError: the host is gone
                visit()
                done.set()

        if self._visit is not None and self._visit.is_alive():
            return False  # the last one still waits for an answer
        self._visit = threading.Thread(target=run, name="watch-store", daemon=True)
        self._visit.start()
        self._visit.join(_PATIENCE_S)
        return done.is_set()


def _key(rank: int) -> str:
    return f"wit/at/{rank}"


def verdict(reports: dict[int, Report], rank: int, world_size: int, unix_s: float) -> TrainingError:
    """Return what is told of ranks that do not move: who is to blame, where, and since when.

    Args:
        reports: what each rank said last; a rank may be missing.
        rank: that tells it.
        world_size: how many there are.
        unix_s: the time, by which a report is old.
    """
    again = "start again to go on from the last checkpoint"
    behind = _behind(reports, world_size)
    place = f"step {min(r.step for r in reports.values()):,}"
    if len(behind) == world_size:
        who = f"all {world_size} ranks are" if world_size > 1 else "the training is"
        mine = reports[rank]
        return TrainingError(
            f"{who} stuck in {mine.what!r} for {mine.still_s:.0f} s",
            where=f"{place}, rank {rank} on {mine.host}, process {mine.pid}",
            fix=f"look at the stack below{' and the network' if world_size > 1 else ''}; {again}",
        )
    accused = "; ".join(_told(r, reports.get(r), unix_s) for r in behind[:_NAMED])
    more = f"; and {len(behind) - _NAMED} more" if len(behind) > _NAMED else ""
    others = sorted({repr(reports[r].what) for r in reports if r not in behind})
    waiting = _ranges(r for r in range(world_size) if r not in behind)
    stack = "the stack below" if rank in behind else "the log of its machine"
    return TrainingError(
        f"stuck: {accused}{more}; waiting for it: rank {waiting} in {' and '.join(others)}",
        where=place,
        fix=f"look at {stack}; {again}",
    )


def _behind(reports: dict[int, Report], world_size: int) -> list[int]:
    """Return the ranks that are furthest behind: those that never reported, if there are any."""
    if missing := [rank for rank in range(world_size) if rank not in reports]:
        return missing
    progress = {rank: (r.step, r.what not in _ALONE, r.phase) for rank, r in reports.items()}
    least = min(progress.values())
    return [rank for rank in sorted(progress) if progress[rank] == least]


def _told(rank: int, report: Report | None, unix_s: float) -> str:
    if report is None:
        return f"rank {rank} has told nothing"
    silent_s = unix_s - report.unix_s
    place = f"rank {rank} (process {report.pid} on {report.host})"
    if silent_s > _SILENT_S:
        return f"{place} was heard of {silent_s:.0f} s ago, in {report.what!r}: is it gone?"
    return f"{place} is in {report.what!r} for {report.still_s:.0f} s"


def _ranges(numbers: Iterable[int]) -> str:
    """Return ascending numbers as words: 0-2, 5."""
    runs = list[list[int]]()
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _cut_off(rank: int, report: Report) -> TrainingError:
    return TrainingError(
        f"stuck in {report.what!r} for {report.still_s:.0f} s, and the rendezvous host, through "
        "which the ranks tell where they are, does not answer",
        where=f"step {report.step:,}, rank {rank} on {report.host}, process {report.pid}",
        fix="look at that host and the network; start again to go on from the last checkpoint",
    )


def _orphaned(rank: int, parent: int) -> TrainingError:
    return TrainingError(
        f"whoever started this process (process {parent}) is gone, so it ends",
        where=f"rank {rank} on {socket.gethostname()}",
        fix="start again to go on from the last checkpoint",
    )


def _not_stopped(rank: int, report: Report) -> TrainingError:
    return TrainingError(
        f"told to stop, but still in {report.what!r}: is a peer gone? It ends without saving",
        where=f"step {report.step:,}, rank {rank} on {report.host}, process {report.pid}",
        fix="start again to go on from the last checkpoint",
    )


def _main_stack() -> list[str]:
    """Return where the main thread is, innermost first, without reading any source file."""
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    main = frames.get(threading.main_thread().ident or 0)
    return [
        f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        for frame, line in (traceback.walk_stack(main) if main is not None else ())
    ]
