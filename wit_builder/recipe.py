"""A TOML recipe becomes frozen structs; an unknown or wrong key is refused with its path.

``load`` works for any struct (the trainer has its own); ``sections.Recipe`` is that of a build.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import tomli_w
import xxhash
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.errors import RecipeError, StorageError
from wit_builder.sections import (
    BLOCK_LISTS,
    ArchiveSource,
    Recipe,
    SiteSource,
    TablesSource,
    WarcSource,
    WatSource,
    WebDatasetSource,
    WikipediaSource,
)

T = TypeVar("T")
FileSource = WatSource | WarcSource | TablesSource | WebDatasetSource


def load(place: str, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Return the recipe at a place as a ``kind``, with ``key.path=value`` overrides applied.

    Args:
        place: TOML file, local or remote.
        kind: a frozen ``msgspec.Struct`` that forbids unknown fields.
        overrides: values are TOML (``3``, ``"text"``, ``[1, 2]``); a bare word is a string.

    Raises:
        RecipeError: not TOML, an unknown key, a wrong type or an impossible value; names the key.
    """
    try:
        data = tomllib.loads(storage.read_bytes(place).decode())
    except StorageError as error:
        raise RecipeError("cannot read the recipe", where=place, fix=error.what) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"not valid TOML: {error}", where=place, fix="correct it there"
        ) from error
    return overridden(data, kind, overrides, where=place)


def overridden(
    data: dict[str, Any], kind: type[T], overrides: Sequence[str], *, where: str = ""
) -> T:
    """Return parsed TOML as a ``kind``, with ``key.path=value`` overrides applied to it first.

    Raises:
        RecipeError: an unknown key, a wrong type or an impossible value; names the key.
    """
    for override in overrides:
        _apply(data, override)
    return convert(data, kind, where=where)


def convert(data: dict[str, Any], kind: type[T], *, where: str = "") -> T:
    """Return parsed TOML as a ``kind``, strictly.

    Raises:
        RecipeError: an unknown key, a wrong type or an impossible value; names the key.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$.")
        key = at.rstrip("`")
        raise RecipeError(
            message, where=": ".join(p for p in (where, key) if p), fix=_advice(message, key, kind)
        ) from error


def _advice(message: str, key: str, kind: Any) -> str:
    unknown = re.search(r"unknown field `(\w+)`", message)
    if not unknown:
        return f"set {key or 'it'} to a value of that kind"
    known = _fields_at(kind, [p for p in re.sub(r"\[\.*\w*\]", "", key).split(".") if p])
    close = difflib.get_close_matches(unknown[1], known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def _fields_at(kind: Any, path: list[str]) -> list[str]:
    """Return the field names of the struct (or of all structs of the union) at a key path."""
    structs = _structs_in(kind)
    for part in path:
        hints = [typing.get_type_hints(s, include_extras=False).get(part) for s in structs]
        structs = [inner for hint in hints if hint is not None for inner in _structs_in(hint)]
    return sorted({name for s in structs for name in s.__struct_fields__})


def _structs_in(hint: Any) -> list[Any]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [s for argument in typing.get_args(hint) for s in _structs_in(argument)]


def _apply(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(
            "not of the form key.path=value", where=f"--set {override}", fix="e.g. --set seed=1"
        )
    at: Any = data
    for key in keys[:-1]:
        at = at.setdefault(key, {}) if isinstance(at, dict) else _item(at, key)
        if not isinstance(at, dict | list):
            raise RecipeError(
                f"{key} is not a section", where=f"--set {override}", fix="check the path"
            )
    if not isinstance(at, dict):
        raise RecipeError(
            f"{keys[-2]} is a list", where=f"--set {override}", fix="e.g. crawl.sources.0.sample=1"
        )
    at[keys[-1]] = _value(text.strip())


def _item(items: list[Any], key: str) -> Any:
    """Return an item of a list, counted from 0; None if there is none."""
    return items[int(key)] if key.isdecimal() and int(key) < len(items) else None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def dump(recipe: msgspec.Struct) -> str:
    """Return the recipe as TOML with every default written out, its digest in the first line."""
    body = tomli_w.dumps(_without_none(msgspec.to_builtins(recipe)))
    return f"# resolved recipe, digest {digest(recipe)}\n{body}"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def digest(settings: Any) -> str:
    """Return the xxh3-128 hex digest of a recipe or a section, independent of key order."""
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(settings, order="deterministic"))


def read(place: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a build's recipe, its relative paths taken from the recipe's own folder.

    Raises:
        RecipeError: it cannot be read, or a key is unknown or wrong.
    """
    base = place.rpartition("/")[0] or "."
    base = base if storage.is_remote(base) else str(Path(base).resolve())
    return anchored(load(place, Recipe, overrides), base)


def anchored(recipe: Recipe, base: str) -> Recipe:
    """Return the recipe with relative paths of its inputs taken from ``base``, its own folder."""

    def at(path: str) -> str:
        storage.refuse_credentials(path)  # before the recipe is written to the run's folder
        absolute = storage.is_remote(path) or Path(path).is_absolute()
        return path if absolute else storage.join(base, path)

    return _with_inputs(recipe, at)


def lineage(recipe: Recipe) -> str:
    """Return a digest of the recipe wherever its inputs lie: of their places only names count."""
    return digest(_with_inputs(recipe, storage.name_of))


def _with_inputs(recipe: Recipe, place: Callable[[str], str]) -> Recipe:
    """Return the recipe with every input's place changed."""
    queries = recipe.queries
    wordnet, wikipedia = queries.wordnet, queries.wikipedia
    queries = replace(
        queries,
        custom=[place(p) for p in queries.custom],
        wordnet=wordnet and replace(wordnet, path=place(wordnet.path)),
        wikipedia=wikipedia and _placed(wikipedia, place),
    )
    sources = [s if isinstance(s, SiteSource) else _found(s, place) for s in recipe.crawl.sources]
    crawl = replace(recipe.crawl, sources=sources)
    lists = {kind: [place(p) for p in getattr(recipe.block, kind)] for kind in BLOCK_LISTS}
    return replace(recipe, queries=queries, crawl=crawl, block=replace(recipe.block, **lists))


def _found(source: FileSource, place: Callable[[str], str]) -> FileSource:
    source = replace(source, paths=[place(p) for p in source.paths])
    if isinstance(source, ArchiveSource):
        listings = [place(p) for p in source.listings]
        source = replace(source, listings=listings, base=place(source.base))
    return source


def _placed(wikipedia: WikipediaSource, place: Callable[[str], str]) -> WikipediaSource:
    return replace(
        wikipedia,
        dumps=[place(p) for p in wikipedia.dumps],
        counts=[place(p) for p in wikipedia.counts],
        title_lists=[place(p) for p in wikipedia.title_lists],
        pageviews=[place(p) for p in wikipedia.pageviews],
    )
