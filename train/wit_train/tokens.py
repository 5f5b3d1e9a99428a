"""CLIP's byte-level BPE tokens, the same ids as open_clip's, without importing it or torch.

The merges are read from the file that open_clip_torch ships. Ids: 256 bytes, the same 256 at the
end of a word, the merges in their order, then the start and the end of a text (CLIP paper,
section 2.4: 49,152 entries; 49,408 with bytes and specials).
"""

from __future__ import annotations

import gzip
import html
import importlib.util
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wit_builder.errors import MissingPartError

START, END = 49_406, 49_407
VOCABULARY = 49_408

_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = START - 512
_CACHED_WORDS = 1 << 17
_START_WORD, _END_WORD = "<start_of_text>", "<end_of_text>"
_WORD = rf"{_START_WORD}|{_END_WORD}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+"


class Tokenizer:
    """Turns texts into token ids; remembers the words it has met."""

    def __init__(self, context_length: int = 77) -> None:
        """Read the merges (0.15 s).

        Args:
            context_length: tokens of a text, start and end included; longer texts are cut.

        Raises:
            MissingPartError: open_clip_torch is not installed.
        """
        try:
            import regex  # noqa: PLC0415 - comes with open_clip_torch, which is optional
        except ImportError as error:
            raise _missing("regex") from error
        self.context_length = context_length
        self._merges = _read_merges()
        self._find_words = regex.compile(_WORD, regex.IGNORECASE).findall
        self._word_ids = lru_cache(_CACHED_WORDS)(self._merge)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the ids of texts, int32 [len(texts), context_length], zero after the end."""
        out = np.zeros((len(texts), self.context_length), np.int32)
        for row, text in zip(out, texts, strict=True):  # 6 us a caption once words are known
            ids = [START, *self.encode(text)[: self.context_length - 2], END]
            row[: len(ids)] = ids
        return out

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end, however long."""
        return [i for word in self._find_words(cleaned(text)) for i in self._word_ids(word)]

    def _merge(self, word: str) -> tuple[int, ...]:
        """Return a word's ids: its bytes, merged pair by pair, the earliest merge first."""
        if word in (_START_WORD, _END_WORD):
            return (START if word == _START_WORD else END,)
        ids = [_byte_ids()[byte] for byte in word.encode()]
        ids[-1] += 256
        while len(ids) > 1:
            best = min(self._merges.get(pair, VOCABULARY) for pair in pairwise(ids))
            if best == VOCABULARY:
                break
            ids = self._merged(ids, best)
        return tuple(ids)

    def _merged(self, ids: list[int], new: int) -> list[int]:
        """Return the ids with every pair that makes ``new`` replaced by it, from the left."""
        out, at = list[int](), 0
        while at < len(ids):
            pair = at + 1 < len(ids) and self._merges.get((ids[at], ids[at + 1])) == new
            out.append(new if pair else ids[at])
            at += 2 if pair else 1
        return out


def cleaned(text: str) -> str:
    """Return the text as CLIP cleans it: mojibake and entities undone, spaces collapsed, lower."""
    if not (text.isascii() and text.isprintable() and "&" not in text):  # else nothing to undo
        import ftfy  # noqa: PLC0415 - comes with open_clip_torch, which is optional

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@cache
def _byte_ids() -> dict[int, int]:
    """Return the id of each byte: printable Latin-1 first, then the others (GPT-2's order)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {byte: i for i, byte in enumerate(printable + others)}


@cache
def _byte_letters() -> dict[str, int]:
    """Return the id of each letter of the merges file, which writes every byte as a letter."""
    ids = _byte_ids()
    others = iter(range(256, 512))
    shown = {
        b: chr(b) if ids[b] < 188 else chr(next(others)) for b in sorted(ids, key=lambda b: ids[b])
    }
    return {letter: ids[byte] for byte, letter in shown.items()}


@cache
def _read_merges() -> dict[tuple[int, int], int]:
    """Return the id that each mergeable pair of ids becomes; a lower id is merged earlier."""
    spec = importlib.util.find_spec("open_clip")  # finds a package without importing it
    if spec is None or spec.origin is None:
        raise _missing("open_clip_torch")
    lines = gzip.decompress((Path(spec.origin).parent / _FILE).read_bytes()).decode().split("\n")
    ids = {
        k: v
        for letter, i in _byte_letters().items()
        for k, v in ((letter, i), (f"{letter}</w>", i + 256))
    }
    merges = {}
    for number, line in enumerate(lines[1 : _MERGES + 1], start=512):
        left, right = line.split()
        merges[ids[left], ids[right]] = ids[left + right] = number
    return merges


def _missing(package: str) -> MissingPartError:
    return MissingPartError(
        f"tokens need the package {package}", fix="pip install 'wit-builder[train]'"
    )
