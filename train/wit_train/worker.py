"""A decode process: blocks in shared memory become rows of batches in shared memory.

It is stateless: whatever it is asked for is in the task, so any process can do any task, again if
need be. It imports what decoding needs and no more, and ends when whoever started it does.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from wit_builder.shards.block_index import caption_of
from wit_builder.shards.layout import Foreign
from wit_train.arena import Area, BatchSlots, BlockSlots
from wit_train.decode import Augment, Decoder
from wit_train.tokens import Clean, Tokenizer

ROW, PART, SLOT, SAMPLE, EPOCH, ID = range(6)
COLUMNS = 6
"""Columns of a task: row of the batch, data set, block's slot, which sample of it, and the seeds'
words: epoch and position in the data."""

_LOOK_S = 5.0
"""How often a process without work looks whether its parent is there still."""


class Settings(msgspec.Struct, frozen=True):
    """What a decode process must know; the same for all tasks."""

    image_size: int
    context_length: int
    clean: Clean
    augment: Augment | None
    seed: int
    rows: int
    """Of a batch."""
    max_block_bytes: int
    block_slot_bytes: int
    batch_slot_bytes: int
    foreign: list[Foreign | None]
    """How samples look, by data set; None: as our own."""


class Task(msgspec.Struct, frozen=True, array_like=True):
    """Rows of a batch to fill."""

    number: int
    batch_slot: int
    rows: bytes
    """int64 [rows, 6]: see ``ROW`` and the others."""


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What became of a task."""

    number: int
    seconds: float = 0.0
    substituted: int = 0
    unfilled: list[int] = []
    """Indices of the task's rows of whose block no sample is usable."""
    error: str = ""
    """An exception that ended it: no tokenizer, no memory, a mistake of ours."""
    trace: str = ""


class _Block(NamedTuple):
    """A block in memory, and where its samples are."""

    data: memoryview
    places: list[list[int]]
    foreign: Foreign | None


class _Usable(NamedTuple):
    """Which sample of a block fills a row, and its caption."""

    sample: int
    text: str


class Filler:
    """Fills rows of batches; made once in each process that decodes."""

    def __init__(self, settings: Settings, blocks_fd: int, batches_fd: int) -> None:
        """Prepare to decode; nothing is mapped yet."""
        area = Area(blocks_fd, settings.block_slot_bytes)
        self._blocks = BlockSlots(area, settings.max_block_bytes)
        area = Area(batches_fd, settings.batch_slot_bytes)
        size, length = settings.image_size, settings.context_length
        self._batches = BatchSlots(area, settings.rows, size, length)
        self._decoder = Decoder(size, settings.augment, settings.seed)
        self._tokenizer = Tokenizer(length, settings.clean)
        self._foreign = settings.foreign

    def fill(self, task: Task) -> Result:
        """Do a task."""
        began = time.perf_counter()
        images, tokens = self._batches.here(task.batch_slot)
        texts, filled, unfilled, substituted = list[str](), list[int](), list[int](), 0
        blocks: dict[int, _Block] = {}
        rows: list[list[int]] = np.frombuffer(task.rows, np.int64).reshape(-1, COLUMNS).tolist()
        for number, (row, part, slot, sample, *words) in enumerate(rows):
            if slot not in blocks:
                memory = self._blocks.memory(slot)
                index = self._blocks.index(memory).tolist()
                blocks[slot] = _Block(memory, index, self._foreign[part])
            usable = self._usable(blocks[slot], sample, words, images[row])
            if usable is None:
                unfilled.append(number)
                continue
            texts.append(usable.text)
            filled.append(row)
            substituted += usable.sample != sample
        if filled:
            tokens[filled] = self._tokenizer(texts)
        return Result(task.number, time.perf_counter() - began, substituted, unfilled)

    def _usable(
        self, block: _Block, first: int, words: list[int], into: npt.NDArray[np.uint8]
    ) -> _Usable | None:
        """Decode a block's sample, or the next usable one, cyclically."""
        for distance in range(len(block.places)):
            sample = (first + distance) % len(block.places)
            at, size, text_at, text_size = block.places[sample]
            if size <= 0:
                continue
            text = caption_of(block.data[text_at : text_at + text_size], block.foreign)
            picture = block.data[at : at + size]
            if text and self._decoder.decode(picture, words[0], words[1], into):
                return _Usable(sample, text)
        return None


def main() -> None:
    """Do the tasks that come down a pipe, until it is closed.

    Arguments: descriptors of the pipe, of the blocks' memory and of the batches', and who started
    this process.
    """
    pipe, blocks_fd, batches_fd, parent = (int(number) for number in sys.argv[1:5])
    cv2.setNumThreads(0)  # its threads would compete with the other decode processes
    with Connection(pipe) as connection:
        try:
            receive = partial(_received, connection, parent)
            _serve(receive, connection.send_bytes, (blocks_fd, batches_fd))
        except (EOFError, OSError):
            return


def _received(connection: Connection, parent: int) -> bytes:
    """Return the next message; end where there is to be none.

    The pipe of a parent that was killed stays open if something else holds it, as a process that
    was forked from it does.
    """
    while not connection.poll(_LOOK_S):
        if os.getppid() != parent:
            raise EOFError
    if not (message := connection.recv_bytes()):
        raise EOFError
    return message


def _serve(
    receive: Callable[[], bytes], send: Callable[[bytes], object], fds: tuple[int, int]
) -> None:
    settings = msgspec.msgpack.decode(receive(), type=Settings)
    fill = _filler(settings, *fds)  # while the first blocks are read
    while True:
        task = msgspec.msgpack.decode(receive(), type=Task)
        try:
            result = fill(task)
        except Exception as error:  # noqa: BLE001 - it is told to the parent, which ends the stream
            text = f"{type(error).__name__}: {error}"
            result = Result(task.number, error=text, trace=traceback.format_exc())
        send(msgspec.msgpack.encode(result))


def _filler(settings: Settings, blocks_fd: int, batches_fd: int) -> Callable[[Task], Result]:
    """Return what does tasks; or what raises, with the first of them, why that cannot be."""
    try:
        return Filler(settings, blocks_fd, batches_fd).fill
    except Exception as error:  # noqa: BLE001 - raised again
        return partial(_raise, error)


def _raise(error: Exception, task: Task) -> Result:
    del task
    raise error


if __name__ == "__main__":
    main()
