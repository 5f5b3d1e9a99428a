"""The state of a run: copied out of the way of training, written to a file, and read back.

A file is what ``torch.save`` writes and ``torch.load`` reads. Its digest is taken while it is
written, and looked at before anything in it is believed.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import torch
import xxhash

from wit_builder import storage
from wit_builder.errors import CheckpointError, GoneError

State = dict[str, Any]
"""State dicts by the names of their parts."""

_RANGE_BYTES = 16 << 20
_RANGES_AT_ONCE = 8
_UNLOADABLE = (
    RuntimeError,  # torch's, of the archive
    pickle.UnpicklingError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
)


class SavedFile(msgspec.Struct, frozen=True):
    """A file of a checkpoint: its name beside the JSON, size in bytes, xxh3-64 hex digest."""

    name: str
    size_bytes: int
    xxh3: str


class DamageError(Exception):
    """What is wrong with a file of a checkpoint, and where it is; what to do, its reader knows."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where)
        self.what, self.where = what, storage.redact(where)


class Buffers:
    """Host memory for one copy of a state, kept from one copy to the next."""

    def __init__(self) -> None:
        self._held: list[torch.Tensor] = []

    def copy_of(self, state: State) -> State:
        """Return a copy of a state on the host; the copy before it is overwritten.

        Tensors keep their strides: fused optimisers take a parameter and its averages to be laid
        out alike. Tensors that are one in memory are one in the copy.

        Raises:
            CheckpointError: there is no memory for it.
        """
        tensors = list(_tensors_in(state))
        distinct = {_place_of(t): t.detach() for t in tensors}
        shapes = [_shape_of(_host_like(t, "meta")) for t in distinct.values()]
        if [_shape_of(held) for held in self._held] != shapes:
            self._held.clear()  # before there are others: never two sets of them
            self._held = _allocated(list(distinct.values()))
        for held, tensor in zip(self._held, distinct.values(), strict=True):
            held.copy_(tensor, non_blocking=True)
        for device in {t.device for t in distinct.values() if t.is_cuda}:
            torch.cuda.synchronize(device)
        copies = dict(zip(distinct, self._held, strict=True))
        # what deepcopy finds here it takes, and it copies all else, attributes of dicts included
        return copy.deepcopy(state, {id(t): copies[_place_of(t)] for t in tensors})


def _tensors_in(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_in(part)


def _place_of(tensor: torch.Tensor) -> tuple[object, ...]:
    return (tensor.device, tensor.data_ptr(), *_shape_of(tensor))


def _shape_of(tensor: torch.Tensor) -> tuple[object, ...]:
    return (tensor.dtype, tensor.shape, tensor.stride())


def _host_like(tensor: torch.Tensor, device: str = "cpu") -> torch.Tensor:
    pinned = tensor.is_cuda and device == "cpu"  # else the copy would wait for each tensor
    return torch.empty_like(tensor, device=device, pin_memory=pinned)


def _allocated(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    try:
        return [_host_like(tensor) for tensor in tensors]
    except RuntimeError as error:  # torch has no class of its own for memory of the host
        gigabytes = sum(t.nbytes for t in tensors) / 1e9
        raise CheckpointError(
            f"no memory for the copy of {gigabytes:.2f} GB that is saved: {_first_line(error)}",
            where="host memory",
            fix="give the process that much more; fewer pace.workers take less",
        ) from error


def publish(url: str, state: State) -> SavedFile:
    """Publish a state as a file that ``torch.load`` reads, and return what it is.

    The interpreter is held only for moments at a time: another thread goes on computing.

    Raises:
        StorageError: disk full, no permission, bucket unreachable.
        CheckpointError: something in it is neither tensor nor plain value: it could not be read.
    """
    with storage.publish(url) as path:
        with path.open("wb") as file:
            out = _Hashed(file)
            torch.save(state, out)  # type: ignore[arg-type]  # asks for no more than write, flush
            if out.failed:
                raise out.failed
        try:
            _loaded(path)
        except DamageError as error:
            raise CheckpointError(
                f"the state could not be read back: {error.what}",
                where=storage.redact(url),
                fix="save tensors and plain values only",
            ) from error
    return SavedFile(storage.name_of(url), out.size_bytes, out.digest.hexdigest())


class _Hashed:
    """Takes the digest of what is written to a file.

    What fails is kept until torch is done: its writer, in C++, would hide a full disk behind
    complaints of its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.size_bytes = file, xxhash.xxh3_64(), 0
        self.failed: OSError | None = None

    def write(self, data: memoryview) -> int:
        if self.failed is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.failed = error
            self.digest.update(data)
            self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None: ...


def read(url: str, file: SavedFile) -> State:
    """Return the state in a file, on the host: in pages of the file, not in memory of its own.

    Raises:
        DamageError: it is missing, or not what the manifest says.
        StorageError: it cannot be read, or there is no room to download it to.
    """
    try:
        size = storage.size_of(url)
        if size != file.size_bytes:
            raise DamageError(f"it has {size:,} bytes, not {file.size_bytes:,}", url)
        with _at_hand(url, size) as path, storage.translated(url, "read"):
            if storage.digest_file(path) != file.xxh3:
                raise DamageError("its digest is not the one noted", url)
            return _loaded(path, url)
    except GoneError as error:
        raise DamageError("it is missing", url) from error


@contextlib.contextmanager
def _at_hand(url: str, size: int) -> Iterator[Path]:
    """Give a local file of those bytes; what is mapped from it outlives it."""
    if not storage.is_remote(url):
        yield Path(storage.filesystem(url)[1])
        return
    with tempfile.TemporaryDirectory(prefix="wit-") as folder:
        path = Path(folder) / storage.name_of(url)
        _download(url, size, path)
        yield path


def _download(url: str, size: int, path: Path) -> None:
    with (
        storage.translated(str(path), "write"),
        path.open("wb") as file,
        ThreadPoolExecutor(_RANGES_AT_ONCE) as threads,
    ):

        def fetch(start: int) -> None:
            data = storage.read_bytes(url, start, min(start + _RANGE_BYTES, size))
            while data:
                written = os.pwrite(file.fileno(), data, start)
                start, data = start + written, data[written:]

        list(threads.map(fetch, range(0, size, _RANGE_BYTES)))


def _loaded(path: Path, url: str = "") -> State:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _UNLOADABLE as error:
        raise DamageError(f"it does not load: {_first_line(error)}", url) from error
    if not isinstance(state, dict):
        raise DamageError("it holds no state dicts", url)
    return state


def _first_line(error: BaseException) -> str:
    reason = str(error).split("WeightsUnpickler error: ")[-1]  # advice stands before it
    return (reason or type(error).__name__).splitlines()[0][:200]
