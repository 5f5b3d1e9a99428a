"""The program that runs img2dataset, in a process of its own: ``-m`` this, and a file of settings.

img2dataset starts processes of its own, which import this module again (as ``__mp_main__``): it is
there that the web is asked. All are of one process group, which ends when whoever started it does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from wit_builder.fetch.img2dataset.transport import Transport
from wit_builder.fetch.img2dataset.turns import Manners


class Settings(msgspec.Struct, frozen=True):
    """What the program is told: manners, and the arguments of ``img2dataset.download``."""

    manners: Manners
    arguments: dict[str, Any]


def _end_with_parent() -> None:
    """Wait until the other end of standard input is gone, which a kill brings about as well."""
    os.read(0, 1)  # not sys.stdin: its lock would be in the way of an orderly end
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(settings: Settings) -> None:
    """Run img2dataset to its end."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import img2dataset  # noqa: PLC0415 - an extra, and seconds to import

    img2dataset.download(**settings.arguments)


if __name__ in {"__main__", "__mp_main__"}:
    # Where these are installed it imports them, for nothing here: half of its seconds to start.
    sys.modules.update(dict.fromkeys(("torch", "ray")))  # type: ignore[arg-type]
    told = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)
    Image.MAX_IMAGE_PIXELS = None  # the transport has its own limit
    urllib.request.install_opener(Transport(told.manners))
    if __name__ == "__main__":
        main(told)
