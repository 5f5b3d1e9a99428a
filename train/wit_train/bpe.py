"""CLIP's byte-level BPE: the ids of a word, from the merges that open_clip_torch ships as a file.

Ids: 256 bytes, the same 256 at the end of a word, the merges in their order, then the start and the
end of a text (CLIP paper, section 2.4: 49,152 entries; 49,408 with bytes and specials).
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import count, islice, pairwise
from pathlib import Path

from wit_builder.errors import MissingPartError

START, END = 49_406, 49_407
VOCABULARY = 49_408

_FILE = "bpe_simple_vocab_16e6.txt.gz"
_BYTES = 256
_MERGES = START - 2 * _BYTES
_AT_END = "</w>"


class Merges:
    """What turns words into ids."""

    def __init__(self) -> None:
        """Read the merges (60 ms).

        Raises:
            MissingPartError: open_clip_torch is not installed.
        """
        letters = _byte_letters()
        self._byte_ids = dict(zip(letters, count()))
        shown = list(letters.values())
        pairs = [line.split() for line in _merge_lines()]
        symbols = [*shown, *(letter + _AT_END for letter in shown), *map("".join, pairs)]
        id_of = dict(zip(symbols, count()))
        # no two merges make the same symbol, so that a pair's merge, its rank and its id are one
        ids = ((id_of[left], id_of[right]) for left, right in pairs)
        self._made_by = dict(zip(ids, count(2 * _BYTES)))

    def ids(self, word: str) -> Iterable[int]:
        """Return a word's ids: its bytes, merged pair by pair, the earliest merge first.

        The leftmost of equal pairs goes first. With a heap of what can be merged, a word of n
        bytes takes n log n; looking for the best pair after every merge would take n squared, and
        a caption may be a single word of 100 kB.
        """
        ids = [self._byte_ids[byte] for byte in word.encode()]
        ids[-1] += _BYTES
        made_by, size = self._made_by, len(ids)
        following, before = list(range(1, size + 1)), list(range(-1, size - 1))
        heap = [(new, at) for at, pair in enumerate(pairwise(ids)) if (new := made_by.get(pair))]
        heapify(heap)
        while heap:  # 8 us a word that was not met before
            new, at = heappop(heap)
            right = following[at]
            if right == size or made_by.get((ids[at], ids[right])) != new:
                continue  # one of the two was merged with its other neighbour
            ids[at], ids[right] = new, -1
            after = following[at] = following[right]
            if after < size:
                before[after] = at
                if made := made_by.get((new, ids[after])):
                    heappush(heap, (made, at))
            left = before[at]
            if left >= 0 and (made := made_by.get((ids[left], new))):
                heappush(heap, (made, left))
        return (i for i in ids if i >= 0)


def _byte_letters() -> dict[int, str]:
    """Return how the merges file writes each byte, in the order of their ids (GPT-2's).

    Printable Latin-1 stands for itself and comes first; the others are letters from U+0100 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(_BYTES) if byte not in printable]
    letters = {byte: chr(_BYTES + number) for number, byte in enumerate(others)}
    return {byte: chr(byte) for byte in printable} | letters


def _merge_lines() -> list[str]:
    spec = importlib.util.find_spec("open_clip")  # finds a package without importing it
    if spec is None or spec.origin is None:
        raise missing("open_clip_torch")
    with gzip.open(Path(spec.origin).parent / _FILE, "rt", encoding="utf-8") as lines:
        return list(islice(lines, 1, _MERGES + 1))


def missing(package: str) -> MissingPartError:
    """Return the error that a package which tokens need is not there."""
    return MissingPartError(
        f"tokens need the package {package}", fix="pip install 'wit-builder[train]'"
    )
