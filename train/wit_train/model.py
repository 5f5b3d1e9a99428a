"""The model: open_clip's CLIP from a config, and the few facts about it that the trainer needs."""

from __future__ import annotations

import difflib
import math
from typing import Any, NamedTuple, get_args

import msgspec
import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP

from wit_builder import storage
from wit_builder.errors import RecipeError
from wit_train import memory
from wit_train.config import LossSection, ModelSection
from wit_train.decode import Augment
from wit_train.stream import Look
from wit_train.tokens import VOCABULARY, Clean, Tokenizer

# CLIP paper's data, as its authors' code normalises it; per channel, of pixels in [0, 1]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Spec(NamedTuple):
    """A model's config, and what the data must look like to suit it.

    Attributes:
        config: as open_clip takes it, and as checkpoints record it.
        image_size: side of the pictures, pixels.
        context_length: tokens of a text.
        clean: what is done to a text before it becomes tokens.
        name: open_clip's name of the model, where the recipe gives it.
    """

    config: dict[str, Any]
    image_size: int
    context_length: int
    clean: Clean
    name: str = ""


def spec_of(section: ModelSection, loss: LossSection | None = None) -> Spec:
    """Return what a recipe's model section asks for, with what its loss section says of the logits.

    Raises:
        RecipeError: not one of name, file and config; an unknown name; a config without its parts;
            patches to drop where there are none; a loss with the wrong logits.
        StorageError: the file cannot be read.
    """
    if sum(map(bool, (section.name, section.file, section.config))) != 1:
        raise RecipeError("say which model", where="model", fix="set one of name, file and config")
    config = section.config or (
        _from_file(section.file) if section.file else _by_name(section.name)
    )
    spec = checked(config)._replace(name=section.name)
    return spec._replace(config=_with_logits(_with_dropout(config, section.patch_dropout), loss))


def checked(config: dict[str, Any]) -> Spec:
    """Return a config with the sizes in it.

    Raises:
        RecipeError: something a CLIP needs is missing, or the texts are not CLIP's BPE tokens.
    """
    for key, kind in (("embed_dim", int), ("vision_cfg", dict), ("text_cfg", dict)):
        if not isinstance(config.get(key), kind):
            raise RecipeError(
                f"a model config needs {key}", where="model", fix="see train/README.md"
            )
    vision, text = config["vision_cfg"], config["text_cfg"]
    options = text.get("tokenizer_kwargs") or {}
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


def _with_dropout(config: dict[str, Any], share: float) -> dict[str, Any]:
    vision = config["vision_cfg"]
    if not share:
        return config
    if "timm_model_name" not in vision and isinstance(vision.get("layers"), list):
        raise RecipeError(
            "a ResNet has no patches to drop",  # open_clip would ignore the key
            where="model.patch_dropout",
            fix="leave it out, or choose a ViT",
        )
    return {**config, "vision_cfg": {**vision, "patch_dropout": share}}


def _with_logits(config: dict[str, Any], loss: LossSection | None) -> dict[str, Any]:
    if loss is None:
        return config
    config = dict(config)
    if loss.initial_logit_scale:
        config["init_logit_scale"] = math.log(loss.initial_logit_scale)
    if loss.initial_logit_bias is not None:
        config["init_logit_bias"] = loss.initial_logit_bias
    has_bias = config.get("init_logit_bias") is not None
    if loss.kind == "siglip" and not has_bias:
        raise RecipeError(
            "SigLIP's loss needs a bias of the logits",
            where="loss.initial_logit_bias",
            fix="set it; the paper's is -10",
        )
    if loss.kind == "clip" and has_bias:
        raise RecipeError(
            "a bias of all logits changes nothing in CLIP's loss, and would not be trained",
            where="loss.initial_logit_bias",
            fix='leave it out, or set loss.kind = "siglip"',
        )
    return config


def look_of(spec: Spec, augment: Augment | None) -> Look:
    """Return what batches look like to suit a model: in training, or with None in evaluation."""
    return Look(
        image_size=spec.image_size,
        context_length=spec.context_length,
        augment=augment,
        clean=spec.clean,
    )


def tokenizer_of(spec: Spec) -> Tokenizer:
    """Return what makes the model's tokens of texts."""
    return Tokenizer(spec.context_length, spec.clean)


def _by_name(name: str) -> dict[str, Any]:
    try:
        config = open_clip.get_model_config(name)
    except (OSError, RuntimeError, ValueError) as error:  # of "hf-hub:..." and "local-dir:..."
        raise RecipeError(
            f"open_clip cannot get the config of {name!r}: {first_line(error)}",
            where="model.name",
            fix="save it as a file, and set model.file",
        ) from error
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), 1)
        fix = f"did you mean {close[0]!r}?" if close else "see open_clip.list_models()"
        raise RecipeError(f"no model {name!r} in open_clip", where="model.name", fix=fix)
    return dict(config)


def _from_file(place: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(storage.read_bytes(place), type=dict[str, Any])
        exported = found.get("model_cfg")
        return exported if isinstance(exported, dict) else found
    except msgspec.MsgspecError as error:
        raise RecipeError(
            f"not a model config: {error}", where=storage.redact(place), fix="see model.file"
        ) from error


def build(spec: Spec, seed: int) -> CLIP | CustomTextCLIP:
    """Return the model with weights drawn from a seed, convolutions laid out channels last.

    The weights are drawn on the CPU, so they are the same on every rank and device. Under
    ``torch.device("meta")`` there are none, only their shapes. Sets torch's global seed.

    Raises:
        RecipeError: open_clip refuses the config.
    """
    config = dict(spec.config)
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    if "timm_model_name" in config["vision_cfg"]:  # timm's own weights are not asked for
        config["vision_cfg"] = {**config["vision_cfg"], "timm_model_pretrained": False}
    torch.manual_seed(seed)
    try:
        model = kind(**config)
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError) as error:
        if memory.is_lacking(error):
            raise
        raise RecipeError(
            f"open_clip refuses the model config: {first_line(error)}",
            where="model",
            fix="compare with its own",
        ) from error
    # what convolutions prefer, on CPU and GPU
    return model.to(memory_format=torch.channels_last)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def normalised(image_BHWC: torch.Tensor) -> torch.Tensor:
    """Return uint8 pixels as the floats [B, 3, H, W] (channels last) that the model expects."""
    mean, std = (torch.tensor(v, device=image_BHWC.device) * 255 for v in (MEAN, STD))
    return ((image_BHWC.float() - mean) / std).permute(0, 3, 1, 2)
