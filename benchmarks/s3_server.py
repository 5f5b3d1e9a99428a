"""A real S3 server (SeaweedFS) on loopback, which can be killed and started again."""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Self

KEYS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret"}

_PORTS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")
_LOW_PORTS = range(20_000, 22_700)
"""With their neighbours below those that Linux gives out (32,768 on), above Ray's workers'."""
_PATIENCE_S = 60.0
_ASK_AGAIN_S = 0.05


class S3Server:
    """The server and its one bucket; use as a context.

    Attributes:
        endpoint: ``http://ADDRESS:PORT``.
        address: where it listens.
        pid: of its process, while it runs.
    """

    def __init__(self, folder: Path, bucket: str, address: str = "127.0.0.1") -> None:
        """Start nothing yet; what is stored lies in the folder."""
        weed = str(Path(sys.executable).parent / "weed")
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.endpoint = f"http://{address}:{ports['s3.port']}"
        self.address = address, ports["s3.port"]
        self._bucket, self._log = bucket, folder / "log"
        self._command = [weed, "mini", f"-dir={folder}", f"-ip={address}", f"-ip.bind={address}"]
        self._command += [f"-bucket={bucket}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        self._command += ["-webdav=false", "-admin.ui=false"]
        self._command += [f"-{name}={port}" for name, port in ports.items()]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, on the same port as ever, and wait until it answers."""
        environment = {**os.environ, **KEYS}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        began = time.monotonic()
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - began > _PATIENCE_S:
                raise RuntimeError(f"the S3 server did not start: see {self._log}")
            time.sleep(_ASK_AGAIN_S)

    def _answers(self) -> bool:
        """Return whether its bucket is there; without a key it may say so by a refusal."""
        connection = HTTPConnection(*self.address, timeout=1)
        try:
            connection.request("GET", f"/{self._bucket}/")
            return connection.getresponse().status in {200, 403}
        except OSError:
            return False
        finally:
            connection.close()

    def has_ended(self, within_s: float) -> bool:
        """Return whether its process ends within some seconds."""
        assert self._process
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


def free_ports(count: int) -> list[int]:
    """Return so many ports that are free, each with its neighbour at +10000 free as well.

    Nobody is given them by chance before they are used: systems give out higher ones.
    """
    drawn = random.SystemRandom().sample(_LOW_PORTS, len(_LOW_PORTS))
    free = (port for port in drawn if _is_free(port) and _is_free(port + 10_000))
    return list(itertools.islice(free, count))


def _is_free(port: int) -> bool:
    with socket.socket() as opened:
        try:
            opened.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
