"""Scripts without spaces between words: refused by name, and counted.

A text in these has no token borders, so a query in them would match only where it stands alone.
"""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
"""Names of scripts, as Unicode (and RE2) has them."""

_ANY = "[" + "".join(rf"\p{{{script}}}" for script in WITHOUT_SPACES) + "]"


class Refused(msgspec.Struct, frozen=True):
    """Rows refused because of their script, with the first of them."""

    script: str
    rows: int
    example: str


class Refusals:
    """Takes rows in refused scripts out of tables, and counts them; ``rows`` is how many."""

    def __init__(self) -> None:
        self.rows = 0
        self._found: dict[str, tuple[int, str]] = {}

    def sift(self, table: pa.Table, column: str) -> pa.Table:
        """Return the rows whose text in a column can be looked for."""
        foreign = pc.invert(pc.string_is_ascii(table[column])).combine_chunks()
        suspects = table[column].filter(foreign)  # few, where most is ASCII
        if not len(suspects):
            return table
        refused = pc.match_substring_regex(suspects, _ANY)
        self._count(suspects.filter(refused))
        masks = pc.replace_with_mask(foreign, foreign, refused.combine_chunks())
        return table.filter(pc.invert(masks))

    def _count(self, texts: pa.ChunkedArray) -> None:
        self.rows += len(texts)
        for script in WITHOUT_SPACES:
            has = texts.filter(pc.match_substring_regex(texts, rf"\p{{{script}}}"))
            if len(has):
                rows, example = self._found.get(script, (0, has[0].as_py()))
                self._found[script] = rows + len(has), example

    def by_script(self) -> list[Refused]:
        """Return what was refused, a row for each script that was met."""
        return [Refused(s, *self._found[s]) for s in WITHOUT_SPACES if s in self._found]
