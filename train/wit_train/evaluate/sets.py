"""Open a test set of any kind: class folders, a list, clip_benchmark's tars, or shards."""

from __future__ import annotations

from wit_builder import storage
from wit_builder.errors import GoneError, TrainingError
from wit_builder.shards import layout
from wit_train.evaluate import folders, naming, tars
from wit_train.evaluate.item import Item, TestSet
from wit_train.evaluate.shard_set import ShardSet

__all__ = ["Item", "TestSet", "opened"]


def opened(place: str, names: str = "", *, captions: bool = False) -> TestSet:
    """Return the test set at a place, local or remote.

    A folder with ``dataset.json`` is a data set of shards; with ``nshards.txt``, in it or in its
    ``test``, one in clip_benchmark's layout; another folder has class folders; a file is a list.

    Args:
        place: of a folder or a list.
        names: a file that names the classes, or ``imagenet``; see ``naming``.
        captions: for retrieval: every item has captions, and there are no classes.

    Raises:
        TrainingError: the set has not what is asked for, or is not what it should be.
        ShardFormatError: its shards are damaged, or not finished.
        GoneError: there is nothing, or no file of names.
        StorageError: it cannot be read.
    """
    naming.refuse_missing(names)
    found = _found(place.rstrip("/") or place, names, captions=captions)
    found.notes += naming.repeated(found.classes)
    return found


def _found(place: str, names: str, *, captions: bool) -> TestSet:
    if not tars.is_web(place) and _is_file(place):
        return _list(place, names, captions=captions)
    if storage.exists(storage.join(place, layout.DATASET)):
        return ShardSet(place, names, captions=captions)
    if split := tars.split_of(place):
        return tars.TarSet(place, split, names, captions=captions)
    if not storage.exists(place):
        web = "check the address; class folders cannot be listed over https: download them"
        raise GoneError(
            "no such test set",
            where=storage.redact(place),
            fix=web if tars.is_web(place) else "name a folder or a list",
        )
    if tars.is_web(place):
        return _list(place, names, captions=captions)
    if captions:
        raise TrainingError(
            "class folders have no captions",
            where=storage.redact(place),
            fix="give a list of PICTURE<tab>CAPTION, shards, or a retrieval set of clip_benchmark",
        )
    return folders.of_folder(place, names)


def _list(place: str, names: str, *, captions: bool) -> TestSet:
    if folders.is_picture(place):
        fix = "name its folder, or a list of pictures"
        raise TrainingError("a picture, not a test set", where=storage.redact(place), fix=fix)
    if place.endswith((".tar", ".parquet")):
        fix = "name the folder that it is in; for a folder of tars: wit index"
        raise TrainingError("one file of a set", where=storage.redact(place), fix=fix)
    return folders.of_list(place, names, captions=captions)


def _is_file(place: str) -> bool:
    fs, path = storage.filesystem(place)
    return bool(fs.isfile(path))
