"""One run of img2dataset: started, watched, ended, and what it wrote read back.

It writes small shards to a temporary folder, and each is read as soon as it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from wit_builder.errors import EngineError
from wit_builder.fetch.img2dataset.main import Settings
from wit_builder.fetch.img2dataset.reasons import SUCCESS
from wit_builder.fetch.img2dataset.transport import Note
from wit_builder.fetch.img2dataset.turns import Manners
from wit_builder.shards import foreign

SHARD_ROWS = 1000
"""Rows that are lost by a kill, at most; between two shards its downloads come to a rest."""
_STARTING_S = 300.0
"""Seconds within which it has begun: three processes that import for ten seconds each."""
_LOOK_S = 0.2
_TOLD_CHARS = 600


class Result(NamedTuple):
    """What img2dataset says of one URL.

    Attributes:
        nth: which of the URLs that it was given, from 0.
        row: of its table.
        picture: its bytes, where there is one.
        note: what was noted of the body, where there was one.
    """

    nth: int
    row: dict[str, Any]
    picture: bytes | None
    note: Note | None


class Process:
    """A run of img2dataset.

    Args:
        folder: a temporary one, empty.
        urls: what it asks for, in this order.
        manners: what its requests keep to.
        arguments: of ``img2dataset.download``, but for its inputs and outputs.
        limit_s: seconds that it may take for the URLs of some indices; longer is a hang.
    """

    def __init__(
        self,
        folder: Path,
        urls: Sequence[str],
        manners: Manners,
        arguments: dict[str, Any],
        limit_s: Callable[[range], float],
    ) -> None:
        self._folder, self._urls, self._limit_s = folder, urls, limit_s
        self._settings = Settings(
            msgspec.structs.replace(manners, notes=str(folder / "notes.jsonl")),
            arguments | self._places(),
        )
        self._notes: dict[str, Note] = {}
        self._noted_bytes = 0

    def _places(self) -> dict[str, Any]:
        return {
            "url_list": str(self._folder / "urls.parquet"),
            "input_format": "parquet",
            "save_additional_columns": ["index"],
            "output_folder": str(self._folder / "out"),
            "output_format": "webdataset",
            "number_sample_per_shard": SHARD_ROWS,
            "max_shard_retry": 0,  # it would ask for all of the shard again
            "processes_count": 1,
        }

    async def results(self) -> AsyncGenerator[list[Result]]:
        """Yield what became of the URLs, some at a time; closing this ends the program.

        Raises:
            EngineError: it ended, hung, or lost some.
        """
        async with self._running() as process:
            for number, first in enumerate(range(0, len(self._urls), SHARD_ROWS)):
                indices = range(first, min(first + SHARD_ROWS, len(self._urls)))
                await self._finished(number, self._limit_s(indices), process)
                yield await asyncio.to_thread(self.read, number, len(indices))

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start the program; end it, and all that it started, on leaving."""
        urls, indices = list(self._urls), pa.array(range(len(self._urls)), pa.int64())
        pq.write_table(pa.table({"url": urls, "index": indices}), self._folder / "urls.parquet")
        settings = self._folder / "settings.json"
        settings.write_bytes(msgspec.json.encode(self._settings))
        with (self._folder / "printed").open("wb") as printed:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "wit_builder.fetch.img2dataset.main", str(settings)),
                stdin=asyncio.subprocess.PIPE,  # its end tells the program that we are gone
                stdout=printed,
                stderr=printed,
                start_new_session=True,
                env=os.environ | self._environment(),
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _environment(self) -> dict[str, str]:
        return {
            "NO_ALBUMENTATIONS_UPDATE": "1",  # else it looks for updates online
            "WANDB_MODE": "disabled",
            # Of its own, OpenCV decodes up to 2^30 pixels.
            "OPENCV_IO_MAX_IMAGE_PIXELS": str(self._settings.manners.max_pixels),
        }

    async def _finished(
        self, number: int, limit_s: float, process: asyncio.subprocess.Process
    ) -> None:
        """Wait until a shard is complete, which its statistics tell."""
        told = self._folder / "out" / f"{number:05d}_stats.json"
        limit_s += _STARTING_S
        try:
            async with asyncio.timeout(limit_s):
                while not told.exists():
                    if process.returncode is not None and not told.exists():
                        raise self._error(f"ended with status {process.returncode}")
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError as error:
            raise self._error(f"did not finish a shard in {limit_s:.0f} s") from error

    def _error(self, what: str) -> EngineError:
        printed = (self._folder / "printed").read_text(errors="replace")
        return EngineError(
            f"img2dataset {what}; it printed: ...{printed[-_TOLD_CHARS:]}",
            where=f"{len(self._urls)} URLs",
            fix="start again (only what is not published is asked for), "
            'or set fetch.engine = "wit"',
        )

    # --- reading what it wrote ----------------------------------------------

    def read(self, number: int, rows: int) -> list[Result]:
        """Return what a complete shard tells of so many URLs, and remove it.

        Raises:
            EngineError: it lost some.
        """
        stem = self._folder / "out" / f"{number:05d}"
        table = pq.read_table(f"{stem}.parquet").to_pylist()
        pictures = dict(_pictures(Path(f"{stem}.tar")))
        self._read_notes()
        results = [
            Result(r["index"], r, pictures.get(r["key"]), self._notes.get(r["url"])) for r in table
        ]
        lost = rows - len(results) + sum(map(_is_lost, results))
        if lost:
            raise self._error(f"lost {lost} of {rows} URLs")
        for suffix in (".tar", ".parquet", "_stats.json"):
            Path(f"{stem}{suffix}").unlink()
        return results

    def _read_notes(self) -> None:
        """Read what was noted since."""
        path = Path(self._settings.manners.notes)
        if not path.exists():
            return
        with path.open("rb") as stream:
            stream.seek(self._noted_bytes)
            for line in stream:
                if line.endswith(b"\n"):
                    note = msgspec.json.decode(line, type=Note)
                    self._notes[note.url] = note
                    self._noted_bytes += len(line)


def _is_lost(result: Result) -> bool:
    """Return whether a picture that was had is not there."""
    there = result.picture is not None and result.note is not None
    return result.row["status"] == SUCCESS and not there


def _pictures(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of the pictures of a shard of img2dataset's."""
    with place.open("rb") as stream:
        for member in foreign.walk(stream, place.stat().st_size):
            if isinstance(member, foreign.Fault):
                continue  # what it cost is missed where the table is read
            stem, _, ending = member.name.partition(".")
            if ending == "jpg":
                yield stem, stream.read(member.size)
