"""Sets of millions of digests and perceptual hashes, each with a number, in arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

KEPT_BYTES = 16
"""Of a digest; that two of 10**9 pictures share so many by chance is less likely than 10**-20."""


class Digests:
    """A set of digests, each with a number: 20 bytes a digest, 3 us a question.

    Args:
        rows: uint8 arrays [N, 16], the first bytes of the digests.
        numbers: uint32 arrays [N]; of a digest that is there twice, the first counts.
    """

    def __init__(self, rows: Sequence[U8], numbers: Sequence[U32]) -> None:
        words = np.concatenate([np.empty((0, KEPT_BYTES), np.uint8), *rows]).view(">u8")
        order = np.argsort(words[:, 0].astype(np.uint64), kind="stable")
        self._heads, self._tails = (words[order, n].astype(np.uint64) for n in (0, 1))
        self._numbers = np.concatenate([np.empty(0, np.uint32), *numbers])[order]

    def __len__(self) -> int:
        return len(self._heads)

    def find(self, digest: bytes) -> int | None:
        """Return the number of a digest; None if it is not in the set."""
        if not len(self._heads):
            return None
        head, tail = (int.from_bytes(digest[n : n + 8], "big") for n in (0, 8))
        at = int(self._heads.searchsorted(np.uint64(head)))
        while at < len(self._heads) and self._heads[at] == head:
            if self._tails[at] == tail:
                return int(self._numbers[at])
            at += 1
        return None


class PictureHashes:
    """Perceptual hashes of 64 bits, each with a number: 12 bytes a hash, 0.1 ms among 100,000.

    Args:
        rows: uint8 arrays [N, 8].
        numbers: uint32 arrays [N].
    """

    def __init__(self, rows: Sequence[U8], numbers: Sequence[U32]) -> None:
        words = np.concatenate([np.empty((0, 8), np.uint8), *rows]).view(">u8")
        self._hashes = words[:, 0].astype(np.uint64)
        self._numbers = np.concatenate([np.empty(0, np.uint32), *numbers])

    def __len__(self) -> int:
        return len(self._hashes)

    def nearest(self, value: bytes, within: int) -> int | None:
        """Return the number of the hash that differs in the fewest bits, the first of equals.

        None if none differs in at most ``within`` bits.
        """
        if not len(self._hashes):
            return None
        at = _nearest(self._hashes, np.uint64(int.from_bytes(value, "big")), within)
        return None if at < 0 else int(self._numbers[at])


@numba.njit(cache=True)
def _nearest(hashes: U64, value: np.uint64, within: int) -> int:
    best, at = within + 1, -1
    for i in range(hashes.size):
        bits = _ones(hashes[i] ^ value)
        if bits < best:
            best, at = bits, i
    return at


@numba.njit(cache=True, inline="always")
def _ones(word: np.uint64) -> int:
    """Return how many bits are set, counted in ever wider fields (Hacker's Delight, 5-1)."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return int((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
