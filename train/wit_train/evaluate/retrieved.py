"""Examples of retrieval: a query and what it found."""

from __future__ import annotations

from typing import Literal

import msgspec


class Found(msgspec.Struct, frozen=True):
    """An answer of retrieval.

    Attributes:
        item: a picture, by its place in the test set, or a text.
        score: its cosine with the query.
        right: whether it belongs to the query.
    """

    item: int | str
    score: float
    right: bool


class Example(msgspec.Struct, frozen=True):
    """A query of retrieval with what it found.

    Attributes:
        query: a picture, by its place in the test set, which looked for texts; or a text, which
            looked for pictures.
        found: the answers that scored best, best first.
        rank: of the best right answer: 0 is first, ties count against the model.
        right: the best right answer, for where it is not among ``found``.
    """

    query: int | str
    found: list[Found]
    rank: int
    right: Found | None = None

    @property
    def direction(self) -> Literal["text_by_image", "image_by_text"]:
        """What was looked for by what, as in the names of the scores."""
        return "text_by_image" if isinstance(self.query, int) else "image_by_text"
