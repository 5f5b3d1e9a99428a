"""Faults of a data set: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pyarrow as pa

from wit_builder import storage
from wit_builder.errors import ShardFormatError, WitError

FINISH_REMOVAL = "name the data set (or its run) to `wit remove`: that finishes it"


class Fault(msgspec.Struct, frozen=True):
    """One thing that is not as it should be.

    Attributes:
        file: name of the file in the data set's folder.
        member: name of the tar member, or of the table's row; empty for the file as a whole.
        offset: byte in the file: where a damaged member's data starts, where a damaged header
            stands, or the first wrong byte of padding; -1 where no byte can be named.
        what: what is wrong.
        fix: what to do.
    """

    file: str
    member: str
    offset: int
    what: str
    fix: str = "copy the file again from where it is whole, or pack it again"

    @property
    def where(self) -> str:
        """File, member and byte, as far as they are known."""
        place = ": ".join(p for p in (self.file, self.member) if p)
        return place + (f" at byte {self.offset}" if self.offset >= 0 else "")

    def told(self) -> str:
        """Return where it is and what it is."""
        return f"{self.where}: {self.what}"

    def error(self) -> ShardFormatError:
        """Return the fault as the error that tells it in a line."""
        return ShardFormatError(self.what, where=self.where, fix=self.fix)


def readable_table(
    folder: str, name: str, schema: pa.Schema, report: Callable[[Fault], None]
) -> pa.Table | None:
    """Return a table that is exactly of its schema, or None after reporting why not."""
    try:
        table = storage.read_parquet(storage.join(folder, name))
        table.validate(full=True)
    except (WitError, pa.ArrowException, OSError, UnicodeDecodeError) as error:
        report(Fault(name, "", -1, f"not readable: {reason(error)}"))
        return None
    if table.schema.names != schema.names or table.schema.types != schema.types:
        report(Fault(name, "", -1, "its columns are not those of the format"))
        return None
    if any(column.null_count for column in table.columns):
        report(Fault(name, "", -1, "has nulls where none may be"))
        return None
    return table


def reason(error: Exception) -> str:
    """Return an error's words in one line of at most 200 characters."""
    text = error.what if isinstance(error, WitError) else str(error)
    return " ".join(text.split())[:200]
