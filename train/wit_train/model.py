"""The model: open_clip's CLIP from a config, and the few facts about it that the trainer needs."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple, get_args

import msgspec
import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP

from wit_builder import storage
from wit_builder.errors import RecipeError
from wit_train.config import ModelSection
from wit_train.tokens import VOCABULARY, Clean, Tokenizer

# CLIP paper's data, as its authors' code normalises it; per channel, of pixels in [0, 1]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Spec(NamedTuple):
    """A model's config, and what the data must look like to suit it."""

    config: dict[str, Any]
    image_size: int
    context_length: int
    clean: Clean


def spec_of(section: ModelSection) -> Spec:
    """Return what a recipe's model section asks for.

    Raises:
        RecipeError: not one of name, file and config; an unknown name; a config without its parts.
        StorageError: the file cannot be read.
    """
    if sum(map(bool, (section.name, section.file, section.config))) != 1:
        raise RecipeError("say which model", where="model", fix="set one of name, file and config")
    config = section.config or (
        _from_file(section.file) if section.file else _by_name(section.name)
    )
    return checked(config)


def checked(config: dict[str, Any]) -> Spec:
    """Return a config with the sizes in it.

    Raises:
        RecipeError: something a CLIP needs is missing, or the texts are not CLIP's BPE tokens.
    """
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if key not in config:
            raise RecipeError(
                f"a model config needs {key}", where="model", fix="see train/README.md"
            )
    vision, text = config["vision_cfg"], config["text_cfg"]
    options = text.get("tokenizer_kwargs", {})
    clean = options.get("clean", "lower")
    foreign = "hf_model_name" in text or "hf_tokenizer_name" in text
    if (
        foreign
        or text.get("vocab_size", VOCABULARY) != VOCABULARY
        or options.keys() - {"clean"}
        or clean not in get_args(Clean)
    ):
        raise RecipeError(
            "the texts of this model are not CLIP's BPE tokens",
            where="model.text_cfg",
            fix=f"choose a model with vocab_size {VOCABULARY}",
        )
    size = vision.get("image_size", 224)
    if not isinstance(size, int):
        raise RecipeError("pictures must be square", where="model.vision_cfg.image_size")
    return Spec(config, size, text.get("context_length", 77), clean)


def tokenizer_of(spec: Spec) -> Tokenizer:
    """Return what makes the model's tokens of texts."""
    return Tokenizer(spec.context_length, spec.clean)


def _by_name(name: str) -> dict[str, Any]:
    config = open_clip.get_model_config(name)
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), 1)
        fix = f"did you mean {close[0]!r}?" if close else "see open_clip.list_models()"
        raise RecipeError(f"no model {name!r} in open_clip", where="model.name", fix=fix)
    return dict(config)


def _from_file(place: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(storage.read_bytes(place), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise RecipeError(
            f"not a model config: {error}", where=place, fix="see model.file"
        ) from error


def build(spec: Spec, seed: int) -> CLIP:
    """Return the model with weights drawn from a seed, convolutions laid out channels last.

    Raises:
        RecipeError: open_clip refuses the config.
    """
    config = dict(spec.config)
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    torch.manual_seed(seed)
    try:
        model = kind(**config)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise RecipeError(
            f"open_clip refuses the model config: {error}",
            where="model",
            fix="compare with its own",
        ) from error
    return model.to(memory_format=torch.channels_last)  # what convolutions on CPU prefer


def normalised(image_BHWC: torch.Tensor) -> torch.Tensor:
    """Return uint8 pixels as the floats [B, 3, H, W] (channels last) that the model expects."""
    mean, std = (torch.tensor(v, device=image_BHWC.device) * 255 for v in (MEAN, STD))
    return ((image_BHWC.float() - mean) / std).permute(0, 3, 1, 2)
