"""Ctrl-C and SIGTERM end a command at once; at its next unit, if that went unheard.

The exception that a signal raises can be lost: Python drops it where it strikes in a destructor (of
a file that fsspec opened, without a word), and so does whoever catches all. Therefore it is noted,
too, that a signal came.

Before a command has begun, and once it has ended, nothing has to be cleaned up: the process is left
where it is.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Those that ask a command to stop."""
STATUS = 130
"""Exit status of a command that was interrupted."""
SAID = "wit: interrupted -> start the same command again to go on"


class Interrupted(KeyboardInterrupt):
    """A signal to stop came.

    A class of its own, since after a bare KeyboardInterrupt out of ``exec`` (of which namedtuples
    are made) ``python -m`` ends itself with SIGINT, whatever exit status was asked for.
    """


_Handler = Callable[[int, FrameType | None], None]
_came: list[int] = []


def leave_until_begun() -> None:
    """Have both signals end this process at once, but those that it was started to ignore."""
    _handle(_leaving(STATUS, f"{SAID}\n"))
    atexit.register(_ignore)  # the first to register is the last to run


def heed() -> None:
    """Have both signals raise ``Interrupted``, but those that are ignored."""
    _handle(_interrupt)
    sys.unraisablehook = _tell_unraisable


def leave_from_now_on(status: int) -> None:
    """Have both signals end this process with the status that it would have anyway."""
    _handle(_leaving(status))


def check() -> None:
    """Be interrupted if a signal came before.

    Raises:
        Interrupted: one did.
    """
    if _came:
        raise Interrupted


def _handle(handler: _Handler) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leaving(status: int, said: str = "") -> _Handler:
    def leave(_: int, __: FrameType | None) -> NoReturn:
        os.write(2, said.encode())
        os._exit(status)

    return leave


def _interrupt(number: int, _: FrameType | None) -> None:
    _came.append(number)
    raise Interrupted


def _tell_unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Tell what a destructor raised, unless it is the interruption, which is noted."""
    if not issubclass(lost.exc_type, Interrupted):
        sys.__unraisablehook__(lost)


def _ignore() -> None:
    """Let no signal be the exit status: Python gives up its handlers while it ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
