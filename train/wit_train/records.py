"""What a run leaves beside its checkpoints: its recipe, its journal, its boards."""

from __future__ import annotations

import sys
from typing import Self

import msgspec

from wit_builder import recipe as recipes
from wit_builder import storage
from wit_builder.errors import StorageError
from wit_train.board import Boards
from wit_train.config import TrainRecipe
from wit_train.metrics import Journal, Row
from wit_train.ranks import Ranks


class Records:
    """The first rank's notes on a run; those of other ranks go nowhere."""

    def __init__(self, out: str, recipe: TrainRecipe, start_step: int, ranks: Ranks) -> None:
        self._journal: Journal | None = None
        self._boards: Boards | None = None
        if ranks.rank:
            return
        storage.publish_bytes(storage.join(out, "recipe.toml"), recipes.dump(recipe).encode())
        self._journal = Journal(storage.join(out, "metrics.jsonl"), start_step)
        self._boards = Boards(out, recipe.log, msgspec.to_builtins(recipe), start_step)

    def add(self, row: Row) -> None:
        """Write a row."""
        if self._journal and self._boards:
            self._journal.add(row)
            self._boards.add(row)

    def publish(self) -> None:
        """Bring to a remote place what is kept beside it between checkpoints."""
        if self._journal and self._boards:
            self._journal.publish()
            self._boards.publish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:  # what led there is in the last rows
            try:
                self.publish()
            except StorageError as error:
                sys.stderr.write(f"warning: the last rows are lost: {error}\n")
        if self._boards:
            self._boards.close()
