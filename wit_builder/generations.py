"""Which archives make which generation of a run.

The first build makes ``g0`` of all its archives. Archives that are added later join the last
generation as long as it has no shards; after that they make the next one. An archive stays in its
generation, and in its place there, which its unit is named by. ``ROOT/generations.json`` tells.

An archive is known again by its kind and place, or, where it was moved, by its identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from wit_builder import storage
from wit_builder.crawl.candidates import Piece
from wit_builder.errors import RecipeError, StorageError
from wit_builder.recipe import digest

FILE = "generations.json"


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a source as it was when it was last read."""

    kind: str
    key: str
    identity: str

    @classmethod
    def of(cls, piece: Piece) -> Known:
        """Return what a piece is known again by."""
        return cls(piece.kind, piece.key, digest(piece.inputs))


Places = list[Known | None]
"""Of one generation; None where an archive was that the recipe does not name any more."""


def unit_name(kind: str, place: int) -> str:
    """Return the name of the unit that reads the piece in a generation's place."""
    return f"{kind}-{place:05d}"


def of_run(
    root: str, pieces: Sequence[Piece], is_packed: Callable[[str], bool]
) -> list[list[Piece | None]]:
    """Return the pieces of each generation, ``g0`` first, and keep that in the run's folder.

    Args:
        root: the run's folder.
        pieces: of all sources of the recipe.
        is_packed: whether a generation (``g0``) has shards.

    Raises:
        RecipeError: the recipe drops an archive of a generation that has shards.
        StorageError: the file cannot be read or written.
    """
    before = recorded(root)
    made = _found_again(before, pieces)
    for number, places in enumerate(made):
        lost = [old for old, new in zip(before[number], places, strict=True) if old and not new]
        if lost and is_packed(f"g{number}"):
            raise _dropped(root, f"g{number}", lost)
    made = made[: next((i for i, places in enumerate(made) if not any(places)), len(made))]
    known = {(piece.kind, piece.key) for places in made for piece in places if piece}
    new: list[Piece | None] = [p for p in pieces if (p.kind, p.key) not in known]
    if new and (not made or is_packed(f"g{len(made) - 1}")):
        made.append(new)
    elif new:
        made[-1] += new
    _record(root, before, [[Known.of(p) if p else None for p in places] for places in made])
    return made


def _found_again(before: list[Places], pieces: Sequence[Piece]) -> list[list[Piece | None]]:
    """Return the piece in each place, None where there is none any more."""
    keys = {(piece.kind, piece.key): piece for piece in pieces}
    known = {(old.kind, old.key) for places in before for old in places if old}
    moved = {
        (piece.kind, digest(piece.inputs)): piece
        for piece in reversed(pieces)
        if (piece.kind, piece.key) not in known
    }

    def again(old: Known | None) -> Piece | None:
        if old is None:
            return None
        return keys.get((old.kind, old.key)) or moved.pop((old.kind, old.identity), None)

    return [[again(old) for old in places] for places in before]


def _dropped(root: str, generation: str, lost: list[Known]) -> RecipeError:
    return RecipeError(
        f"{generation} has shards already, and {len(lost)} of its archives are not named any more",
        where=f"crawl.sources; the first is {storage.redact(lost[0].key)}",
        fix="name them again, beside later ones; or build into another folder; or, to pack "
        f"{generation} anew without them, remove {storage.join(root, generation, 'shards')}",
    )


def _record(root: str, before: list[Places], now: list[Places]) -> None:
    for number in range(len(now), len(before)):
        for folder in (f"g{number}", f"units/g{number}"):
            storage.remove(storage.join(root, folder))
    if now != before:
        storage.publish_bytes(storage.join(root, FILE), msgspec.json.encode(now))


def recorded(root: str) -> list[Places]:
    """Return the generations of a run as they were last; none if nothing was crawled.

    Raises:
        StorageError: the file cannot be read.
    """
    place = storage.join(root, FILE)
    data = storage.read_many([place]).get(place)
    try:
        return msgspec.json.decode(data, type=list[Places]) if data else []
    except msgspec.DecodeError as error:
        raise StorageError(
            f"not a list of generations: {error}",
            where=place,
            fix="restore it; without it all archives make one generation, g0",
        ) from error
