"""What differs between the recipe of a checkpoint and the one that is to go on from it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from wit_builder.errors import RecipeError
from wit_train.config import Effect, TrainRecipe, bound_keys, effect_of

_CONSEQUENCE: dict[Effect, str] = {
    "order": "other samples in the batches from here on",
    "maths": "another training than before",
}
_DATA = "data"
"""What else may change, under a name like a key's: the data set."""
_NO_KEY = "(no such key)"
_SHOWN = 60
"""Characters of a value in a message."""


def between(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Return both values, as text, of every bound key that differs.

    A key that the checkpoint does not know is no change where it has its default: it came with a
    newer version, and a new key's default does what was done before there was one. A key that only
    the checkpoint knows is a change: this version would not do what it says.

    Args:
        before: bound keys of the checkpoint, with their values as JSON.
        after: those of the recipe.
    """
    defaults = bound_keys(TrainRecipe())
    keys = sorted(before.keys() | after.keys())
    values = {key: (before.get(key, defaults.get(key)), after.get(key)) for key in keys}
    return {
        key: " -> ".join(map(_shown, _apart(*map(_decoded, both))))
        for key, both in values.items()
        if both[0] != both[1] and effect(key) != "free"
    }


def _decoded(value: str | None) -> Any:
    return _NO_KEY if value is None else msgspec.json.decode(value)


def _apart(old: Any, new: Any) -> tuple[Any, Any]:
    """Return both values; of two tables, only what differs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old, new
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    parts = {key: _apart(old.get(key, _NO_KEY), new.get(key, _NO_KEY)) for key in keys}
    return {key: part[0] for key, part in parts.items()}, {k: part[1] for k, part in parts.items()}


def _shown(value: Any) -> str:
    if value is _NO_KEY:
        return _NO_KEY
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def effect(key: str) -> Effect:
    """Return what a change of a key changes; ``maths`` where this version does not know it."""
    try:
        return effect_of(key)
    except KeyError:
        return "maths"


def grouped(changes: Mapping[str, str]) -> str:
    """Return changes in one line, together with what they do: those of the order first."""
    groups = {
        consequence: [f"{key} {change}" for key, change in changes.items() if effect(key) == name]
        for name, consequence in _CONSEQUENCE.items()
    }
    return "; ".join(f"{name}: {', '.join(group)}" for name, group in groups.items() if group)


def refuse_unknown(key: str, bound: Collection[str]) -> None:
    """Refuse to allow a change of what is no key, neither of this recipe nor of the checkpoint.

    Raises:
        RecipeError: with the key that was probably meant.
    """
    found: Any = msgspec.to_builtins(TrainRecipe())
    for part in key.split("."):
        found = found.get(part, {}) if isinstance(found, dict) else {}
    if key == _DATA or key in bound or not isinstance(found, dict):
        return
    close = difflib.get_close_matches(key, [*bound, _DATA], 1)
    raise RecipeError(
        f"no key {key!r} in a training recipe",
        where="--allow-change",
        fix=f"did you mean {close[0]!r}?" if close else "name it as in the recipe: section.key",
    )
