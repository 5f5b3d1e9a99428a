"""Signals that ask a run to stop, for the loop to ask after at the end of a step."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from wit_train.ranks import MAKE_WAY, STOP


@contextlib.contextmanager
def asked_to_stop(told: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Give a function that tells what signals asked for; a second SIGINT ends at once.

    SIGTERM asks to make way: whoever sends it may kill soon after. Others ask to stop.
    """
    asked = 0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        asked = max(asked, MAKE_WAY if number == signal.SIGTERM else STOP)
        if number != signal.SIGUSR1:
            told()

    try:
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {s: signal.signal(s, ask) for s in signals}
        # a launcher's process lets it wait until now
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    except ValueError:  # not in the main thread: whoever runs us handles signals
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
