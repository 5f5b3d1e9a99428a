"""Models that were trained, here or by others, as what gives features of pictures and texts."""

from __future__ import annotations

import contextlib
import difflib
import functools
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from wit_builder import storage
from wit_builder.errors import CheckpointError, RecipeError, TrainingError
from wit_train import attention, checkpoint, decode, model
from wit_train.embedding import Embedding, Preparation
from wit_train.exported import CONFIG, PREFIX, is_exported, read_config, weights_in
from wit_train.resize import resized
from wit_train.tokens import Tokenizer

_SAID = 300
"""Characters of what open_clip says of a model that it cannot make."""


def load(
    place: str, pretrained: str = "", device: str = "", threads: int = 0, precision: str = ""
) -> Embedding:
    """Return a model that was trained.

    Args:
        place: folder of a run of ``wit train``, or the JSON of one of its checkpoints; folder that
            `wit export` wrote, local or remote; ``local-dir:`` or ``hf-hub:`` and what open_clip
            takes after it; or, with ``pretrained``, the name of one of open_clip's models.
        pretrained: a tag of open_clip's, or a file of weights, local or remote.
        device: as torch names it; by default a GPU where there is one.
        threads: of torch on CPU; 0: as many as it has.
        precision: fp32, bf16 or fp16; by default that of a run's training, and of other models
            fp32 on CPU, fp16 on a GPU.

    Raises:
        RecipeError: there is no such model, or no such weights of it.
        TrainingError: there is no model at this place.
        CheckpointError: its weights are damaged, or of another model.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if pretrained:
        _refuse_unknown(place, pretrained)
        with _file_at_hand(pretrained) as weights:
            name = f"{place}, {storage.redact(pretrained)}"
            found = _of_open_clip(place, weights, name, chosen)
    elif place.startswith((PREFIX, "hf-hub:")):
        schema, _, rest = place.partition(":")
        found = _of_open_clip(place, None, f"{schema}:{storage.redact(rest)}", chosen)
    elif is_exported(place):
        with _at_hand(place) as folder:
            found = _of_open_clip(PREFIX + folder, None, storage.redact(place), chosen)
    else:
        found = _of_run(place, chosen)
    found.threads = threads
    found.precision = precision or found.precision
    return found


def _of_run(place: str, device: torch.device) -> Embedding:
    """Return the model of a run; the moving average of its weights, where it kept one."""
    found = checkpoint.latest(place)
    if found is None and open_clip.get_model_config(place) is not None:
        raise TrainingError(
            "a model of open_clip's, but which weights of it?",
            where=place,
            fix="add --pretrained TAG, or a file",
        )
    if found is None:
        raise TrainingError(
            "no model here: neither a checkpoint nor an exported folder",
            where=storage.redact(place),
            fix="name the folder of a run, or, with --pretrained, a model of open_clip's",
        )
    note = checkpoint.read_note(found)
    spec = model.checked(note.model)
    network = model.build(spec, seed=0)
    attention.simplify(network)
    checkpoint.load(found, {checkpoint.part_to_use(note): network})
    made = of_network(network, spec, storage.redact(place), device, note.precision)
    made.step = note.step
    return made


def of_network(
    network: Any, spec: model.Spec, name: str, device: torch.device, precision: str
) -> Embedding:
    """Return a model that ``wit_train.model`` built, with the tokens that it was trained on."""
    preparation = Preparation(functools.partial(decode.for_evaluation, size=spec.image_size))
    return Embedding(
        network,
        preparation,
        model.tokenizer_of(spec),
        name=name,
        config=spec.config,
        device=device,
        precision=precision,
    )


def _of_open_clip(place: str, pretrained: str | None, name: str, device: torch.device) -> Embedding:
    """Return a model as open_clip makes it, its pictures and texts as it wants them.

    Raises:
        CheckpointError: it cannot be made, or got.
    """
    try:
        network = open_clip.create_model(place, pretrained, require_pretrained=True)
        tokenize = open_clip.get_tokenizer(place)
    except MemoryError:
        raise
    except Exception as error:  # it raises nearly anything for files that are not as it likes them
        said = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # what torch says then advises to run it
            said = "not a file of weights"
        raise CheckpointError(
            f"open_clip cannot make this model: {storage.redact(said)[:_SAID]}",
            where=name,
            fix="see that the weights are of the model that is named",
        ) from error
    attention.simplify(network)
    if type(tokenize) is SimpleTokenizer and tokenize.clean_fn is SimpleTokenizer().clean_fn:
        tokenize = Tokenizer(tokenize.context_length, "lower")  # the same tokens, sooner
    return Embedding(
        network,
        _preparation(open_clip.get_model_preprocess_cfg(network)),
        lambda texts: tokenize(list(texts)),
        name=name,
        config=_config_of(place),
        device=device,
        precision="fp16" if device.type == "cuda" else "fp32",
    )


def _preparation(config: dict[str, Any]) -> Preparation:
    """Return open_clip's transform for evaluation; by our own kernels where they do the same."""
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    mean, std = tuple(config["mean"]), tuple(config["std"])
    bicubic = config["interpolation"] == "bicubic"
    if bicubic and config["resize_mode"] == "shortest" and height == width:
        return Preparation(functools.partial(decode.for_evaluation, size=height), mean, std)
    if bicubic and config["resize_mode"] == "squash":
        return Preparation(lambda picture: resized(picture, height, width), mean, std)
    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    return Preparation(lambda picture: transform(Image.fromarray(picture)).numpy())


def _config_of(place: str) -> Any:
    """Return what decides how the weights of a model are used, as far as it can be told."""
    if place.startswith(PREFIX):
        return read_config(place.removeprefix(PREFIX))
    return place if ":" in place else open_clip.get_model_config(place)


@contextlib.contextmanager
def _file_at_hand(place: str) -> Iterator[str]:
    """Give the local file of weights, which is copied if it is remote; a tag as it is."""
    if not storage.is_remote(place):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        yield _copied(place, folder)


def _copied(place: str, folder: str) -> str:
    copied = Path(folder, storage.name_of(place))
    with storage.open_read(place) as stream, copied.open("wb") as written:
        shutil.copyfileobj(stream, written, 16 << 20)
    return str(copied)


@contextlib.contextmanager
def _at_hand(place: str) -> Iterator[str]:
    """Give the local folder of an exported model, which is copied if it is remote."""
    if not storage.is_remote(place):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        for there in (storage.join(place, CONFIG), weights_in(place)):
            _copied(there, folder)
        yield folder


def _refuse_unknown(name: str, pretrained: str) -> None:
    if ":" in name:
        raise RecipeError(
            f"{name} says itself where its weights are", where="pretrained", fix="leave it out"
        )
    if open_clip.get_model_config(name) is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), 1)
        fix = f"did you mean {close[0]!r}?" if close else "see open_clip.list_models()"
        raise RecipeError(f"no model {name!r} in open_clip", where="model", fix=fix)
    tags = open_clip.list_pretrained_tags_by_model(name)
    remote = storage.is_remote(pretrained)
    there = storage.exists(pretrained) if remote else Path(pretrained).is_file()
    if pretrained not in tags and not there:
        raise RecipeError(
            f"no weights {storage.redact(pretrained)!r} of {name}: neither a file nor a tag",
            where="pretrained",
            fix=f"tags: {', '.join(tags) or 'none'}",
        )
