"""What every kind of test set gives: its pictures one by one, with their classes or captions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """A picture of a test set.

    Attributes:
        index: its position in the set, over all ranks; what is left out has one too.
        name: how people find it: its path below the folder or in the list, or TAR/KEY.
        read: gives the picture's bytes; where they are not at hand it reads them, which can raise
            ``StorageError``. Any thread may call it, any number of times.
        target: number of its class; -1: it has none.
        texts: its captions.
    """

    index: int
    name: str
    read: Callable[[], bytes]
    target: int = -1
    texts: tuple[str, ...] = ()


class TestSet(ABC):
    """Pictures with classes, or with captions. Their names may be in memory, they are not.

    Attributes:
        place: where it is.
        classes: what the classes are called, by number; empty where there are captions.
        templates: the set's own prompts, with ``{}`` or ``{c}``; empty where it has none.
        left_out: why and how many pictures were no items, of the last iteration, by this rank.
        notes: what else whoever reads the scores should know of the set.
    """

    __test__ = False  # pytest takes the name for that of tests

    def __init__(
        self, place: str, classes: Sequence[str] = (), templates: Sequence[str] = ()
    ) -> None:
        self.place, self.classes, self.templates = place, list(classes), list(templates)
        self.left_out: dict[str, int] = {}
        self.notes: list[str] = []

    @abstractmethod
    def items(self, rank: int = 0, world_size: int = 1) -> Iterator[Item]:
        """Yield a rank's items by ascending index; every item is one rank's.

        Memory does not grow with the set.

        Raises:
            TrainingError: the set is not what it should be.
            ShardFormatError: of our shards, a block is damaged.
            StorageError: it cannot be read.
        """

    @abstractmethod
    def pictures(self, indices: Collection[int]) -> dict[int, bytes]:
        """Return the bytes of a few pictures by index; indices without an item are left away.

        Raises:
            WitError: as for ``items``.
        """

    def _leave_out(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1
