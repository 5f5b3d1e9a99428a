"""What classes are called in words: templates, and the classifier that they make.

CLIP paper, section 3.1.4: a class is the normalised mean of the normalised features of its name in
every template.

Legend: C classes, D embedding, T templates.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
import xxhash

from wit_builder import storage
from wit_builder.errors import StorageError, TrainingError
from wit_train.embedding import Embedding

BARE = "{}"
"""The name alone."""

_PROMPTS = 8192
"""Whose features are in memory at once."""

_HOLES = ("{}", "{c}")  # ours, and clip_benchmark's
_OF_OPEN_CLIP = {
    "imagenet": "OPENAI_IMAGENET_TEMPLATES",
    "simple": "SIMPLE_IMAGENET_TEMPLATES",
}


def templates_of(given: Sequence[str], place: str, own: Sequence[str]) -> list[str]:
    """Return the templates to use, each with ``{}`` where the name goes.

    Args:
        given: one by one.
        place: a text file with one a line, ``imagenet`` (the 80 of the CLIP paper) or ``simple``
            (7 of them); open_clip has both.
        own: those that the test set brings along; used where nothing else is asked for.

    Returns:
        Without repeats; the bare name, where there are none.

    Raises:
        TrainingError: one without a place for the name, or a file without any.
        StorageError: the file cannot be read.
    """
    found = [*given, *(_named(place) if place else [])]
    where = place or "--template"
    if not found:
        found, where = list(own), "the test set"
    without = [t for t in found if not any(hole in t for hole in _HOLES)]
    if without:
        raise TrainingError(
            f"no {{}} for the name in the template {without[0]!r}",
            where=storage.redact(where),
            fix='write it as "a photo of a {}"',
        )
    return list(dict.fromkeys(t.replace("{c}", "{}") for t in found)) or [BARE]


def _named(place: str) -> list[str]:
    if place in _OF_OPEN_CLIP:
        from open_clip import zero_shot_metadata  # noqa: PLC0415 - comes with torch

        return [make("{}") for make in getattr(zero_shot_metadata, _OF_OPEN_CLIP[place])]
    if not storage.exists(place):
        raise TrainingError(
            f"no such file of templates, and none of {', '.join(_OF_OPEN_CLIP)}",
            where=storage.redact(place),
            fix="write templates into a file, one a line",
        )
    text = storage.read_bytes(place).decode(errors="replace")
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise TrainingError("no templates", where=storage.redact(place), fix="write one a line")
    return found


def class_features(
    embedding: Embedding,
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    cached: bool = True,
) -> torch.Tensor:
    """Return the classifier [C, D] made of names and templates.

    Args:
        embedding: the model.
        classes: names.
        templates: such as ``a drawing of a {}``.
        cached: whether what was made once of the same weights, names and templates is read from
            ``$XDG_CACHE_HOME/wit-builder/classifiers``, and what is made now kept there; its files
            may be deleted at any time.
    """
    if not cached:
        return _made(embedding, classes, templates)
    words = msgspec.json.encode([embedding.identity, list(templates), list(classes)])
    kept = _cache() / f"{xxhash.xxh3_128_hexdigest(words)}.npy"
    found = _kept(kept)
    if found is None:
        found = _made(embedding, classes, templates).cpu()
        _keep(kept, found)
    return found.to(embedding.device)


def _made(embedding: Embedding, classes: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Return the classifier, some classes at a time, with all of their prompts."""
    each, parts = max(1, _PROMPTS // len(templates)), []
    for first in range(0, len(classes), each):
        group = classes[first : first + each]
        prompts = [template.replace("{}", name) for name in group for template in templates]
        text_CTD = embedding.texts(prompts).view(len(group), len(templates), -1)
        parts.append(F.normalize(text_CTD.sum(1), dim=-1))
    return torch.cat(parts)


def ensemble(single_TCD: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the classifier [C, D] of several templates, given that of each alone."""
    return F.normalize(torch.stack(list(single_TCD)).sum(0), dim=-1)


def _kept(place: Path) -> torch.Tensor | None:
    """Return a classifier of the cache; None where there is none, or one cut short."""
    try:
        return torch.from_numpy(np.load(io.BytesIO(place.read_bytes()), allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None


def _keep(place: Path, class_CD: torch.Tensor) -> None:
    """Write a classifier to the cache; where that cannot be, the next run computes it again."""
    data = io.BytesIO()
    np.save(data, class_CD.numpy())
    with contextlib.suppress(StorageError):
        storage.publish_bytes(str(place), data.getvalue())


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wit-builder" / "classifiers"
