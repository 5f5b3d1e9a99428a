"""Ctrl-C and SIGTERM end a command at once; at its next unit, if that went unheard.

The exception that a signal raises can be lost: Python drops it where it strikes in a destructor (of
a file that fsspec opened, without a word), and so does whoever catches all. Therefore it is noted,
too, that a signal came.
"""

from __future__ import annotations

import signal

_came: list[int] = []


def heed() -> None:
    """Have both signals raise KeyboardInterrupt; Ctrl-C only where this process was to heed it."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def check() -> None:
    """Be interrupted if a signal came before.

    Raises:
        KeyboardInterrupt: one did.
    """
    if _came:
        raise KeyboardInterrupt


def _interrupt(number: int, _: object) -> None:
    _came.append(number)
    raise KeyboardInterrupt
