"""CLIP's tokens, the same ids as open_clip's ``SimpleTokenizer``, without importing it or torch."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import get_args

import numpy as np
import numpy.typing as npt

from wit_builder.errors import TrainingError
from wit_train.bpe import END, START, VOCABULARY, Merges, missing
from wit_train.cleaning import Clean, cleaned

__all__ = ["END", "START", "VOCABULARY", "Clean", "Tokenizer"]

_KEPT = 1 << 16  # pieces of text whose ids are remembered: 15 MB
_KEPT_LETTERS = 32  # of the longest of them; longer ones seldom come again
_SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}
_SPECIALS = "|".join(_SPECIAL)
_WORD = rf"{_SPECIALS}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+"
_ID_BYTES = 4
_NO_LIMIT = 1 << 32


class Tokenizer:
    """Turns texts into token ids; remembers the pieces that it has met.

    A piece is what stands between white space. No word of the pattern has white space in it or
    looks beyond itself, so a text's ids are those of its pieces in turn.
    """

    def __init__(self, context_length: int = 77, clean: Clean = "lower") -> None:
        """Read the merges (60 ms, and 40 to import ``regex``).

        Args:
            context_length: tokens of a text, start and end included; longer texts are cut.
            clean: what is done to texts first, by open_clip's names.

        Raises:
            MissingPartError: open_clip_torch is not installed.
            TrainingError: no such cleaning, or no room for start and end.
        """
        try:
            import regex  # noqa: PLC0415 - comes with open_clip_torch, which is optional
        except ImportError as error:
            raise missing("regex") from error
        if clean not in get_args(Clean):
            fix = f"one of {', '.join(get_args(Clean))}"
            raise TrainingError(f"no cleaning is called {clean!r}", fix=fix)
        if context_length < len(_SPECIAL):
            raise TrainingError(f"a context of {context_length} tokens", fix="2 or more")
        self.context_length, self.clean = context_length, clean
        self._merges = Merges()
        self._words = regex.compile(_WORD, regex.IGNORECASE).finditer
        self._known = lru_cache(_KEPT)(self._piece)
        self._word_ids = lru_cache(_KEPT)(self._word)
        self._start, self._end = (np.int32(i).tobytes() for i in (START, END))

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the ids of texts, int32 [len(texts), context_length], zero after the end."""
        room, width = self.context_length - 2, self.context_length * _ID_BYTES
        rows = bytearray()
        for text in texts:  # 3 us a caption of 12 words that were met before
            ids = self._cut(text, room)
            rows += self._start + ids + self._end
            rows += bytes(width - 2 * _ID_BYTES - len(ids))
        return np.frombuffer(rows, np.int32).reshape(len(texts), self.context_length)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without start and end, however long."""
        ids: list[int] = np.frombuffer(self._cut(text, _NO_LIMIT), np.int32).tolist()
        return ids

    def _cut(self, text: str, room: int) -> bytes:
        """Return the first ids of a text, at most ``room`` of them, as the bytes of an int32 array.

        Every piece has an id or more, so there is no need to look at more than ``room`` pieces.
        """
        pieces = cleaned(text, self.clean).split(None, room)[:room]
        known, fresh = self._known, self._piece
        ids = [known(p) if len(p) <= _KEPT_LETTERS else fresh(p, room) for p in pieces]
        return b"".join(ids)[: room * _ID_BYTES]

    def _piece(self, piece: str, room: int | None = None) -> bytes:
        """Return the ids of a piece, or of its first words that have as many as there is room."""
        ids = list[int]()
        for word in self._words(piece):
            ids += self._word_ids(word[0])
            if room is not None and len(ids) >= room:
                break
        return array("i", ids).tobytes()

    def _word(self, word: str) -> list[int]:
        special = _SPECIAL.get(word)
        return list(self._merges.ids(word)) if special is None else [special]
