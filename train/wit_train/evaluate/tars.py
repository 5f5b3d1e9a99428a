"""Test sets in clip_benchmark's layout: numbered tars of WebDataset samples, and text files beside.

::

    FOLDER/classnames.txt                           a name a line
    FOLDER/zeroshot_classification_templates.txt    prompts, with {c}
    FOLDER/dataset_type.txt                         "retrieval", or absent
    FOLDER/test/nshards.txt                         how many tars there are
    FOLDER/test/0.tar, 1.tar, ...                   KEY.webp (or png, jpg), KEY.cls or KEY.txt
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from typing import IO, NamedTuple

from wit_builder import storage
from wit_builder.errors import GoneError, StorageError, TrainingError
from wit_builder.shards import foreign as dialects
from wit_builder.shards.block_index import split
from wit_builder.shards.tar import Member
from wit_train.evaluate import naming
from wit_train.evaluate.item import Item, TestSet

_TEST = "test"
_COUNT = "nshards.txt"
_NAMES = "classnames.txt"
_PROMPTS = "zeroshot_classification_templates.txt"
_KIND = "dataset_type.txt"
_PICTURES = ("webp", "png", "jpg", "jpeg")  # in clip_benchmark's order
_LABEL, _CAPTIONS = "cls", "txt"
_NUMBERED = re.compile(r"[0-9]+\.tar")
_READ_BYTES = 8 << 20


class Sample(NamedTuple):
    """Members of a tar with one key, next to each other.

    Attributes:
        position: in the set.
        tar, key: where it is.
        members: bytes by ending; of samples that nobody wants they are empty.
    """

    position: int
    tar: str
    key: str
    members: dict[str, bytes]

    @property
    def name(self) -> str:
        """Where people find it."""
        return f"{storage.name_of(self.tar)}/{self.key}"


def split_of(place: str) -> str | None:
    """Return the folder of tars that is meant: the place, or its ``test``; None: there is none.

    Raises:
        TrainingError: there are numbered tars, but it is not said how many.
        StorageError: the place cannot be read.
    """
    folders = [place, storage.join(place, _TEST)]
    for folder in folders:
        if storage.exists(storage.join(folder, _COUNT)):
            return folder
    for folder in [] if is_web(place) else folders:
        if any(_NUMBERED.fullmatch(name) for name in storage.sizes(folder)):
            raise TrainingError(
                f"tars without {_COUNT}",
                where=storage.redact(folder),
                fix=f"write their number into {_COUNT}; for shards of pairs: wit index",
            )
    return None


def is_web(place: str) -> bool:
    """Return whether a place is on the web, where no folder can be listed."""
    return place.startswith(("http://", "https://"))


class TarSet(TestSet):
    """A split of a set in clip_benchmark's layout."""

    def __init__(self, place: str, split: str, names: str = "", *, captions: bool = False) -> None:
        """Open it.

        Args:
            place: of the set, as the user names it.
            split: folder of the tars.
            names: see ``naming.by_number``.
            captions: the set is to have captions.

        Raises:
            TrainingError: it has the other, has several classes a picture, lacks a tar, or its
                text files are not what they should be.
            StorageError: they cannot be read.
        """
        above = _above(split)
        _refuse_kind(_optional(above, _KIND).strip().lower(), place, captions=captions)
        prompts = [line.strip() for line in _optional(above, _PROMPTS).splitlines()]
        classes = [] if captions else naming.by_number(names, _own_names(above), place)
        super().__init__(place, classes, [prompt for prompt in prompts if prompt])
        self._captions = captions
        self._tars = _tars(split)

    def items(self, rank: int = 0, world_size: int = 1) -> Iterator[Item]:
        """Yield a rank's items; each rank reads the headers of all tars, and its own pictures."""
        self.left_out, usable = {}, 0
        for sample in self._samples(lambda position: position % world_size == rank):
            lack = self._lack(sample)
            usable += not lack
            if sample.position % world_size == rank:
                item = None if lack else self._item(sample)
                if item:
                    yield item
                else:
                    self._leave_out(lack or "no caption")
        if not usable:
            raise TrainingError(
                f"no pictures with {'captions' if self._captions else 'labels'} in the tars",
                where=storage.redact(self.place),
                fix=f"they are members KEY.{_CAPTIONS if self._captions else _LABEL} beside "
                f"KEY.{', KEY.'.join(_PICTURES)}",
            )

    def pictures(self, indices: Collection[int]) -> dict[int, bytes]:
        """Return the bytes of those there are; the tars are walked up to the last."""
        wanted, found = set(indices), dict[int, bytes]()
        for sample in self._samples(wanted.__contains__):
            if sample.position > max(wanted, default=-1):
                break
            if sample.position in wanted and not self._lack(sample):
                found[sample.position] = _picture(sample)
        return found

    def _samples(self, is_wanted: Callable[[int], bool]) -> Iterator[Sample]:
        position = 0
        for tar in self._tars:
            for sample in _walk(tar, position, is_wanted):
                yield sample
                position = sample.position + 1

    def _lack(self, sample: Sample) -> str:
        """Return what keeps a sample from being an item, by the names of its members."""
        if not any(ending in sample.members for ending in _PICTURES):
            return "no picture"
        if self._captions:
            return "" if _CAPTIONS in sample.members else "no caption"
        return "" if _LABEL in sample.members else "no label"

    def _item(self, sample: Sample) -> Item | None:
        """Return the item of a sample; None where its captions are blank."""
        picture = _picture(sample)
        if not self._captions:
            target = self._target(sample)
            return Item(sample.position, sample.name, lambda: picture, target)
        lines = sample.members[_CAPTIONS].decode(errors="replace").splitlines()
        texts = tuple(line for line in lines if line.strip())
        return Item(sample.position, sample.name, lambda: picture, -1, texts) if texts else None

    def _target(self, sample: Sample) -> int:
        label, where = sample.members[_LABEL], f"{storage.redact(sample.tar)} {sample.key}.{_LABEL}"
        try:
            target = int(label)
        except ValueError as error:
            fix = "write the number of a class, from 0"
            raise TrainingError(f"no number: {label[:20]!r}", where=where, fix=fix) from error
        if not 0 <= target < len(self.classes):
            raise TrainingError(
                f"label {target}, and the classes are 0 to {len(self.classes) - 1}",
                where=where,
                fix="name the classes of this set: its classnames.txt, or --names",
            )
        return target


def _picture(sample: Sample) -> bytes:
    return next(sample.members[ending] for ending in _PICTURES if ending in sample.members)


def _walk(tar: str, first: int, is_wanted: Callable[[int], bool]) -> Iterator[Sample]:
    """Yield a tar's samples, numbered from ``first``; only the members of wanted ones are read.

    Raises:
        TrainingError: the tar is not there, is damaged, or has a member twice.
        StorageError: it cannot be read.
    """
    sample, size = None, _size(tar)
    with _translated(tar), storage.open_read(tar, _READ_BYTES) as stream:
        for key, ending, member in _members(tar, stream, size):
            if sample is None or key != sample.key:
                if sample:
                    yield sample
                sample = Sample(sample.position + 1 if sample else first, tar, key, {})
            if ending in sample.members:
                where = f"{storage.redact(tar)} byte {member.offset}"
                fix = "give every sample a key of its own"
                raise TrainingError(f"a second {key}.{ending}", where=where, fix=fix)
            wanted = is_wanted(sample.position)
            sample.members[ending] = _bytes(stream, member, tar) if wanted else b""
    if sample:
        yield sample


def _members(tar: str, stream: IO[bytes], size: int) -> Iterator[tuple[str, str, Member]]:
    """Yield the keys and endings of a tar's members; the stream stands where each begins."""
    for found in dialects.walk(stream, size):  # 10 us a member
        if isinstance(found, dialects.Fault):
            raise _damaged(found.what, tar, found.offset)
        key, ending = split(found.name)
        if key:
            yield key, ending, found


@contextlib.contextmanager
def _translated(tar: str) -> Iterator[None]:
    """Turn what reading raises into a ``StorageError``."""
    try:
        with storage.translated(tar, "read"):
            yield
    except ValueError as error:
        if not is_web(tar):
            raise
        raise StorageError(  # fsspec's way to say so
            "the server does not serve ranges of a file",
            where=storage.redact(tar),
            fix="download the set, and name the folder",
        ) from error


def _bytes(stream: IO[bytes], member: Member, tar: str) -> bytes:
    data = stream.read(member.size)
    if len(data) < member.size:
        raise _damaged(f"{member.name} ends too soon", tar, member.offset)
    return data


def _damaged(what: str, tar: str, offset: int) -> TrainingError:
    return TrainingError(
        f"the tar is damaged: {what}",
        where=f"{storage.redact(tar)} byte {offset}",
        fix="copy or convert it again",
    )


def _size(tar: str) -> int:
    try:
        return storage.size_of(tar)
    except GoneError as error:
        raise _missing(storage.name_of(tar), _above(tar)) from error


# --- what stands beside the tars ----------------------------------------------


def _tars(split: str) -> list[str]:
    """Return the places of the tars; where the folder can be listed, they are all there."""
    place = storage.join(split, _COUNT)
    text = naming.read_text(place).strip()
    if not (text.isascii() and text.isdigit() and int(text)):
        fix = "write how many tars there are, from 0.tar on"
        raise TrainingError(f"no number: {text[:20]!r}", where=storage.redact(place), fix=fix)
    names = [f"{number}.tar" for number in range(int(text))]
    if not is_web(split):
        there = storage.sizes(split)
        missing = [name for name in names if name not in there]
        if missing:
            raise _missing(missing[0], split)
    return [storage.join(split, name) for name in names]


def _missing(name: str, split: str) -> TrainingError:
    fix = f"copy it there, or correct {_COUNT}"
    return TrainingError(f"{name} is missing", where=storage.redact(split), fix=fix)


def _own_names(folder: str) -> list[str] | None:
    place = storage.join(folder, _NAMES)
    return naming.names_in_order(place) if storage.exists(place) else None


def _optional(folder: str, name: str) -> str:
    place = storage.join(folder, name)
    return naming.read_text(place) if storage.exists(place) else ""


def _above(split: str) -> str:
    """Return the folder that a split, or a file, is in."""
    parent, _, name = split.rpartition("/")
    return parent if parent and name not in {".", ".."} else storage.join(split, "..")


def _refuse_kind(kind: str, place: str, *, captions: bool) -> None:
    """Refuse a set of another kind than is asked for.

    Raises:
        TrainingError: it is one.
    """
    where = storage.redact(place)
    if kind == "multilabel":
        fix = "run clip_benchmark itself: clip_benchmark eval --dataset wds/NAME --dataset_root DIR"
        raise TrainingError("pictures with several classes each", where=where, fix=fix)
    if captions and kind != "retrieval":
        fix = "for zero-shot classification: --images"
        raise TrainingError("a set of classes, without captions", where=where, fix=fix)
    if kind == "retrieval" and not captions:
        raise TrainingError(
            "a set of captions, without classes", where=where, fix="for retrieval: --pairs"
        )
