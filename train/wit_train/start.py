"""The weights that a run begins with (``model.init_from``): weights only, of any CLIP of open_clip.

They come from a run of ours, from a folder that `wit export` wrote, from a file as open_clip's
trainer or others write it, or from open_clip's list of published weights. Nothing of a file is run:
pickles are read as tensors alone, and a TorchScript archive, which is a program, only if it is one
of those that OpenAI published.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip import pretrained
from open_clip.convert import convert_state_dict
from open_clip.factory import load_state_dict
from open_clip.model import (
    CLIP,
    CustomTextCLIP,
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)

from wit_builder import storage
from wit_builder.errors import CheckpointError, RecipeError
from wit_train import checkpoint, exported
from wit_train.model import MEAN, STD, Spec, first_line

State = dict[str, torch.Tensor]

_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
_KINDS = (
    "name a run's folder, a checkpoint's JSON, an exported folder, or a file that ends in "
    f"{', '.join(_SUFFIXES)}"
)
_OPENAIS = {"input_resolution", "context_length", "vocab_size"}
"""Entries that only OpenAI's state dicts have, beside the weights."""
_QUICK = "-quickgelu"
_CODE = re.compile(r"Unsupported (?:global: GLOBAL|class) (\w[\w.]*)")


class Weights(NamedTuple):
    """Weights by their names.

    Attributes:
        state: as open_clip names them.
        quick_gelu: whether they were trained with QuickGELU; None where nothing tells.
    """

    state: State
    quick_gelu: bool | None


def start_from(network: CLIP | CustomTextCLIP, spec: Spec, place: str) -> None:
    """Give a model the weights of a checkpoint, logit scale included.

    Position embeddings are interpolated to the model's sizes, as open_clip does it. A logit bias
    that the checkpoint lacks stays what the recipe says.

    Args:
        network: the model, on any device.
        spec: of the model.
        place: a run's folder or a checkpoint's JSON, local or remote; a folder that `wit export`
            wrote, or another that open_clip's ``local-dir:`` takes, with or without that prefix;
            a file of a state dict, with or without what else open_clip's trainer saves; OpenAI's
            TorchScript archives; or the tag of weights that open_clip knows for the model, such
            as "openai", which it downloads. Tags go before places.

    Raises:
        RecipeError: other activation than the weights were trained with, or pictures that were
            normalised in another way; no such tag.
        CheckpointError: damaged, no checkpoint, or of another model.
        StorageError: it cannot be read.
    """
    if place in {tag for _, tag in pretrained.list_pretrained()}:
        weights = _published(spec, place)
    elif place.endswith(_SUFFIXES):
        weights = _of_file(place)
    elif place.startswith(exported.PREFIX) or exported.is_exported(place):
        weights = _of_exported(place.removeprefix(exported.PREFIX))
    else:
        weights = _of_run(place)
    _refuse_other_activation(weights, spec, place)
    _put(weights.state, network, place)


def _published(spec: Spec, tag: str) -> Weights:
    """Return weights that open_clip knows by a tag, downloaded by it.

    Raises:
        RecipeError: none of that tag for the model; of another activation; of pictures that were
            normalised in another way.
        CheckpointError: they cannot be downloaded.
    """
    if not spec.name:
        raise RecipeError(
            f"{tag!r} names weights of one of open_clip's models, and the recipe names none",
            where="model.init_from",
            fix="set model.name, or name a file",
        )
    known = pretrained.get_pretrained_cfg(spec.name, tag)
    if not known:
        tags = ", ".join(pretrained.list_pretrained_tags_by_model(spec.name)) or "none"
        raise RecipeError(
            f"open_clip has no weights {tag!r} for {spec.name}",
            where="model.init_from",
            fix=f"there are: {tags}",
        )
    expected = Weights({}, bool(known.get("quick_gelu")))
    _refuse_other_activation(expected, spec, tag)
    _refuse_other_pictures(known, tag)
    try:
        path = pretrained.download_pretrained(known)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"open_clip cannot download its weights: {first_line(error)}",
            where=f"{spec.name}, {tag}",
            fix="download them where there is a network, and name the file",
        ) from error
    return expected._replace(state=_of_file(path).state)


def _refuse_other_pictures(preprocessing: dict[str, Any], place: str) -> None:
    mean, std = preprocessing.get("mean", MEAN), preprocessing.get("std", STD)
    if (tuple(mean), tuple(std)) != (MEAN, STD):
        raise RecipeError(
            f"{storage.redact(place)!r} was trained on pictures that were normalised by mean "
            f"{mean}, std {std}",
            where="model.init_from",
            fix="choose weights that use CLIP's; or name a file, to train them anew for CLIP's",
        )


def _of_exported(folder: str) -> Weights:
    config = exported.read_config(folder)
    _refuse_other_pictures(config.preprocess_cfg, folder)
    weights = _of_file(exported.weights_in(folder))
    return weights._replace(quick_gelu=bool(config.model_cfg.get("quick_gelu")))


class _Taker:
    """Takes a part of a checkpoint for what it is."""

    def __init__(self) -> None:
        self.state: State = {}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = dict(state_dict)


def _of_run(place: str) -> Weights:
    found = checkpoint.latest(place)
    if found is None:
        raise CheckpointError("no checkpoint here", where=storage.redact(place), fix=_KINDS)
    taker = _Taker()
    note = checkpoint.load(found, {"model": taker})
    return Weights(taker.state, bool(note.model.get("quick_gelu")))


def _of_file(place: str) -> Weights:
    with _on_disk(place) as path:
        try:
            scripted = _is_torchscript(path)
            state = _of_archive(path) if scripted else _of_tensors(path)
        except MemoryError:
            raise
        except Exception as error:  # torch raises nearly anything for a file that is damaged
            raise _unusable(_reason(error), place) from error
    odd = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise _unusable(f"{_few(odd)}: no tensors", place)
    openais = scripted or not _OPENAIS.isdisjoint(state)
    state = {key: value for key, value in state.items() if key not in _OPENAIS}
    return Weights(state, quick_gelu=True if openais else None)


@contextlib.contextmanager
def _on_disk(place: str) -> Iterator[Path]:
    """Give the path of a file, which is copied if it is remote."""
    storage.size_of(place)  # raises what is wrong with it, if anything is
    if not storage.is_remote(place):
        yield Path(storage.filesystem(place)[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"weights{PurePosixPath(place).suffix}"
        with storage.open_read(place) as stream, path.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 16 << 20)
        yield path


def _of_tensors(path: Path) -> State:
    with warnings.catch_warnings():
        # of another protocol of pickle than torch's own; what torch cannot read of it, it refuses
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        state: State = load_state_dict(str(path), weights_only=True)
        return state


def _is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive: by the file that torch itself looks for."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())


def _of_archive(path: Path) -> State:
    """Return the weights of an archive of OpenAI's.

    Raises:
        ValueError: it is none of them.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest not in openai_digests():
        raise ValueError("a TorchScript archive, which is a program, and not one of OpenAI's")
    with warnings.catch_warnings():
        # TorchScript is deprecated, but there is no other way to read what was published with it
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
        script = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]  # torch's
    return dict(script.state_dict())


def openai_digests() -> set[str]:
    """Return the SHA-256 of the archives that OpenAI published: open_clip's URLs hold them."""
    models = pretrained.list_pretrained_models_by_tag("openai")
    return {pretrained.get_pretrained_url(name, "openai").split("/")[-2] for name in models}


def _reason(error: Exception) -> str:
    said = str(error)
    if code := _CODE.search(said):
        return f"it would run code: {code[1]}"
    if said.startswith("Weights only load failed"):  # what follows advises to run it
        return "not a pickle of tensors"
    return first_line(error)


def _unusable(what: str, place: str) -> CheckpointError:
    return CheckpointError(
        f"not a checkpoint of weights: {what}",
        where=storage.redact(place),
        fix="save the model's state_dict; of a run, name the folder or a checkpoint's JSON",
    )


def _refuse_other_activation(weights: Weights, spec: Spec, place: str) -> None:
    """Refuse weights that were trained with another activation, such as OpenAI's with plain GELU.

    Nothing else would tell: all shapes are the same, and the model is merely bad.
    """
    quick_gelu = weights.quick_gelu
    if quick_gelu is None or quick_gelu == bool(spec.config.get("quick_gelu")):
        return
    other = spec.name.removesuffix(_QUICK) + (_QUICK if quick_gelu else "")
    fix = f"quick_gelu = {str(quick_gelu).lower()} in the model's config"
    if spec.name and other in open_clip.list_models():
        fix = f'model.name = "{other}"'
    names = ("GELU", "QuickGELU")
    raise RecipeError(
        f"{storage.redact(place)} was trained with {names[quick_gelu]}, and this model computes "
        f"{names[not quick_gelu]}",
        where="model.init_from",
        fix=f"set {fix}",
    )


def _put(state: State, network: CLIP | CustomTextCLIP, place: str) -> None:
    """Load weights, after all that open_clip does to such of another version or size.

    Raises:
        CheckpointError: names that are missing or unknown, or shapes that differ.
    """
    # OpenAI's are float16, which not every CPU kernel can interpolate
    state = {key: v.float() if v.is_floating_point() else v for key, v in state.items()}
    own = network.state_dict()
    state = convert_state_dict(network, state)
    if isinstance(network, CustomTextCLIP) and "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    if "logit_bias" in own:
        state.setdefault("logit_bias", own["logit_bias"])
    for key in {"logit_scale", "logit_bias"} & state.keys() & own.keys():
        state[key] = state[key].reshape(own[key].shape)
    _refuse_other_names(state.keys(), own.keys(), place)
    try:
        resize_pos_embed(state, network)
        resize_text_pos_embed(state, network)
        network.load_state_dict(state)
    except (AssertionError, RuntimeError) as error:
        odd = [key for key in own if key in state and state[key].shape != own[key].shape]
        what = f"other shapes of {_few(odd)}" if odd else first_line(error)
        raise _of_another_model(what, place) from error


def _refuse_other_names(given: Collection[str], own: Collection[str], place: str) -> None:
    # torch starts the counter anew where there is none: nothing that we compute reads it
    missing = [k for k in own if k not in given and not k.endswith(".num_batches_tracked")]
    unknown = [k for k in given if k not in own]
    if missing or unknown:
        parts = [f"lacks {_few(missing)}"] * bool(missing)
        parts += [f"has {_few(unknown)}, which the model has not"] * bool(unknown)
        raise _of_another_model("; ".join(parts), place)


def _of_another_model(what: str, place: str) -> CheckpointError:
    return CheckpointError(
        f"weights of another model: {what}",
        where=storage.redact(place),
        fix="give the model config that they were trained with",
    )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
