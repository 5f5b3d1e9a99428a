"""Which archives make which generation of a run.

The first build makes ``g0`` of all its archives. Archives that are added later join the last
generation as long as it has no shards; after that they make the next one. An archive stays in its
generation; one that the recipe does not name any more leaves it. ``ROOT/generations.json`` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from wit_builder import storage
from wit_builder.crawl.candidates import Piece
from wit_builder.errors import StorageError

FILE = "generations.json"
Keys = list[tuple[str, str]]


def of_run(
    root: str, pieces: Sequence[Piece], is_packed: Callable[[str], bool]
) -> list[list[Piece]]:
    """Return the pieces of each generation, ``g0`` first, and keep that in the run's folder.

    Args:
        root: the run's folder.
        pieces: of all sources of the recipe.
        is_packed: whether a generation (``g0``) has shards.

    Raises:
        StorageError: the file cannot be read or written.
    """
    wanted = {(piece.kind, piece.key): piece for piece in pieces}
    before = _read(root)
    kept = [[key for key in keys if key in wanted] for keys in before]
    kept = kept[: next((i for i, keys in enumerate(kept) if not keys), len(kept))]
    known = {key for keys in kept for key in keys}
    new = [key for key in wanted if key not in known]
    if new and (not kept or is_packed(f"g{len(kept) - 1}")):
        kept.append(new)
    elif new:
        kept[-1] += new
    for number in range(len(kept), len(before)):
        for folder in (f"g{number}", f"units/g{number}"):
            storage.remove(storage.join(root, folder))
    if kept != before:
        storage.publish_bytes(storage.join(root, FILE), msgspec.json.encode(kept))
    return [[wanted[key] for key in keys] for keys in kept]


def _read(root: str) -> list[Keys]:
    place = storage.join(root, FILE)
    data = storage.read_many([place]).get(place)
    try:
        return msgspec.json.decode(data, type=list[Keys]) if data else []
    except msgspec.DecodeError as error:
        raise StorageError(
            f"not a list of generations: {error}",
            where=place,
            fix="restore it; without it all archives make one generation, g0",
        ) from error
