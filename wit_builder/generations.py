"""Which archives make which generation of a run.

The first build makes ``g0`` of all its archives. Archives that are added later join the last
generation as long as it has no shards; after that they make the next one. An archive stays in its
generation, and in its place there, which its unit is named by. ``ROOT/generations.json`` tells.

A generation may also be *whole*: its shards are of the pairs of all generations so far, drawn anew
or only packed anew, and take the place of all shards before. What was fetched is not fetched again.

An archive is known again by its kind and place, or, where it was moved, by its identity. A later
visit of a site makes a generation as a new archive does; before there are shards, it takes the
place of the visit before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

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


Whole = Literal["", "balance", "pack"]
"""Why a generation's shards are of all pairs so far: drawn or packed anew; empty: they are not."""

Places = list[Known | None]
"""Of one generation; None where an archive was that the recipe does not name any more."""


def unit_name(kind: str, place: int) -> str:
    """Return the name of the unit that reads the piece in a generation's place."""
    return f"{kind}-{place:05d}"


class Recorded(msgspec.Struct, frozen=True):
    """A generation as ``ROOT/generations.json`` has it."""

    places: Places
    whole: Whole = ""


class Members(NamedTuple):
    """What makes a generation: a piece in each place, and why it is of all pairs, if it is."""

    pieces: list[Piece | None]
    whole: Whole = ""


def of_run(
    root: str,
    pieces: Sequence[Piece],
    is_packed: Callable[[str], bool],
    whole: Whole = "",
    is_fetched: Callable[[str], bool] = lambda _: False,
) -> list[Members]:
    """Return what makes each generation, ``g0`` first, and keep that in the run's folder.

    Args:
        root: the run's folder.
        pieces: of all sources of the recipe.
        is_packed: whether a generation (``g0``) has shards.
        whole: make sure that the last generation is of all pairs, for this reason. One generation
            alone always is.
        is_fetched: whether a generation has asked for pictures.

    Raises:
        RecipeError: the recipe drops an archive of a generation that has shards.
        StorageError: the file cannot be read or written.
    """
    before = recorded(root)
    every = [p for piece in pieces for p in (*piece.earlier, piece)]
    made = _found_again(before, every)
    packed = [is_packed(f"g{number}") for number in range(len(made))]
    for number, members in enumerate(made):
        pairs = zip(before[number].places, members.pieces, strict=True)
        lost = [old for old, new in pairs if old and not new]
        if lost and any(packed[number:]):  # later ones stand on this one
            raise _dropped(root, number, packed.index(True, number), lost)
    empty = (i for i, members in enumerate(made) if not any(members.pieces) and not members.whole)
    made = made[: next(empty, len(made))]
    known = {(piece.kind, piece.key) for members in made for piece in members.pieces if piece}
    new: list[Piece | None] = [p for p in pieces if (p.kind, p.key) not in known]
    if new and (not made or made[-1].whole == "pack" or is_packed(f"g{len(made) - 1}")):
        made.append(Members(new))
    elif new:
        _join(made[-1].pieces, new)
    if whole and len(made) > 1:
        last = f"g{len(made) - 1}"
        _make_whole(made, whole, is_open=not (is_packed(last) or is_fetched(last)))
    _record(root, before, [_recorded(members) for members in made])
    return made


def _join(places: list[Piece | None], new: Sequence[Piece | None]) -> None:
    """Add pieces to a generation, each in the place of what stood for the same before, if any."""
    place_of = {(p.kind, p.origin): place for place, p in enumerate(places) if p}
    for piece in new:
        place = place_of.get((piece.kind, piece.origin)) if piece else None
        if place is None:
            places.append(piece)
        else:
            places[place] = piece


def _make_whole(made: list[Members], whole: Whole, *, is_open: bool) -> None:
    """Make the last generation whole, or add one that is, where its own rounds are to stay."""
    last = made[-1]
    if last.whole in {whole, "balance"}:
        return
    if whole == "balance" and not last.whole and is_open:
        made[-1] = last._replace(whole=whole)
    else:
        made.append(Members([], whole))


def _recorded(members: Members) -> Recorded:
    return Recorded([Known.of(p) if p else None for p in members.pieces], members.whole)


def _found_again(before: list[Recorded], pieces: Sequence[Piece]) -> list[Members]:
    """Return the piece in each place, None where there is none any more."""
    keys = {(piece.kind, piece.key): piece for piece in pieces}
    known = {(old.kind, old.key) for generation in before for old in generation.places if old}
    moved = {
        (piece.kind, digest(piece.inputs)): piece
        for piece in reversed(pieces)
        if (piece.kind, piece.key) not in known
    }

    def again(old: Known | None) -> Piece | None:
        if old is None:
            return None
        return keys.get((old.kind, old.key)) or moved.pop((old.kind, old.identity), None)

    return [Members([again(old) for old in g.places], g.whole) for g in before]


def _dropped(root: str, number: int, packed: int, lost: list[Known]) -> RecipeError:
    shards = storage.redact(storage.join(root, f"g{packed}", "shards"))
    return RecipeError(
        f"g{packed} has shards already, and {len(lost)} archives of g{number} are not named any "
        "more",
        where=f"crawl.sources; the first is {storage.redact(lost[0].key)}",
        fix="name them again, beside later ones; or build into another folder; or, to pack anew "
        f"without them, remove {shards}, and those of all later generations",
    )


def _record(root: str, before: list[Recorded], now: list[Recorded]) -> None:
    for number in range(len(now), len(before)):
        for folder in (f"g{number}", f"units/g{number}"):
            storage.remove(storage.join(root, folder))
    if now != before:
        storage.publish_bytes(storage.join(root, FILE), msgspec.json.encode(now))


def recorded(root: str) -> list[Recorded]:
    """Return the generations of a run as they were last; none if nothing was crawled.

    Raises:
        StorageError: the file cannot be read.
    """
    place = storage.join(root, FILE)
    data = storage.read_many([place]).get(place)
    try:
        return msgspec.json.decode(data, type=list[Recorded]) if data else []
    except msgspec.DecodeError as error:
        raise StorageError(
            f"not a list of generations: {error}",
            where=place,
            fix="restore it; without it all archives make one generation, g0",
        ) from error
