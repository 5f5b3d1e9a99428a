"""Every error a user can meet, one tree.

::

    WitError
    ├── RecipeError          a recipe is wrong: unknown key, wrong type, impossible value
    ├── StorageError         a file or bucket cannot be read or written
    │   └── GoneError        a file is not there, or not there any more
    ├── QueryListError       a source of queries, or a query list, is unusable
    ├── ArchiveError         a web archive (WARC, WAT) or a site is unusable
    ├── ShardFormatError     a shard, manifest or block table is not what it should be
    ├── FilterError          a filter of another package fails, or does not do as agreed
    ├── UnitsFailedError     units of a stage failed after their retries; the others are done
    ├── RejectionFloodError  nearly everything was rejected for one reason
    ├── ClusterError         the cluster that was to do the work cannot be reached
    ├── EngineError          another program that was to fetch ended, hung, or lost pairs
    ├── MissingPartError     an optional part of the distribution is not installed
    ├── CheckpointError      a checkpoint cannot be read, or belongs to another run
    ├── TrainingError        training cannot start or go on
    │   └── PeerError        another process of the same training is gone
    └── DemoError            the demo's web or data cannot be set up

What fails for one pair is not an error but a rejection, which is data (see ``tables.Reason``).
"""

from __future__ import annotations


class WitError(Exception):
    """What went wrong, where, and what to do about it, in one line.

    Args:
        what: what is wrong, in a few words.
        where: path, URL, recipe key, line, byte offset: whatever leads to the place.
        fix: what the user can do.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        advice = f" -> {self.fix}" if self.fix else ""
        return " ".join(f"{self.what}{place}{advice}".split())

    def __reduce__(self) -> tuple[object, ...]:
        """Survives the way back from a worker process."""
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[WitError], what: str, where: str, fix: str) -> WitError:
    return kind(what, where=where, fix=fix)


class RecipeError(WitError):
    """A recipe is wrong: unknown key, wrong type, impossible value."""


class StorageError(WitError):
    """A file or bucket cannot be read or written."""


class GoneError(StorageError):
    """A file is not there, or not there any more."""


class QueryListError(WitError):
    """A source of queries, or a query list, is unusable."""


class ArchiveError(WitError):
    """A web archive (WARC, WAT) or a site is unusable."""


class ShardFormatError(WitError):
    """A shard, manifest or block table is not what it should be."""


class FilterError(WitError):
    """A filter of another package fails, or does not do as agreed."""


class UnitsFailedError(WitError):
    """Units of a stage failed after their retries; the other units are done."""


class RejectionFloodError(WitError):
    """Nearly everything was rejected for one reason: most likely a set-up fault."""


class ClusterError(WitError):
    """The cluster that was to do the work cannot be reached."""


class EngineError(WitError):
    """Another program that was to fetch ended, hung, or lost pairs."""


class MissingPartError(WitError):
    """An optional part of the distribution is not installed."""


class CheckpointError(WitError):
    """A checkpoint cannot be read, or belongs to another run."""


class TrainingError(WitError):
    """Training cannot start or go on."""


class PeerError(TrainingError):
    """Another process of the same training is gone; to start anew may help."""


class DemoError(WitError):
    """The demo's web or data cannot be set up."""
