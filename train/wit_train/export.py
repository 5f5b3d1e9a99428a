"""A trained model as a folder that open_clip takes, and the hub: weights, config, model card.

``open_clip_model.safetensors`` holds the weights, ``open_clip_config.json`` says what model they
are of. The config goes last: open_clip takes no folder without it, so one that was cut short is no
model. The same checkpoint and wishes give the same bytes.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import save_file

from wit_builder import storage
from wit_builder.errors import StorageError, TrainingError
from wit_train import checkpoint, lineage, model, model_card
from wit_train.checkpoint import Note
from wit_train.embedding import digest_of
from wit_train.evaluate import results
from wit_train.evaluate.results import Results
from wit_train.exported import CONFIG, PREPROCESSING, WEIGHTS, Config
from wit_train.model import first_line

State = dict[str, torch.Tensor]

CARD = "README.md"
_PIECE_BYTES = 16 << 20


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What an export is to say, beside what the run knows of itself.

    Attributes:
        name: of the model; empty: the run's.
        licence: SPDX identifier; empty: none is named.
        results: of `wit eval`, for the same weights; empty: none.
        data: folders of the shards that were trained on, or of the builds that made them.
        datasheet: URL to link to, or a file to copy; empty: those of the builds in ``data``.
    """

    name: str = ""
    licence: str = ""
    results: str = ""
    data: tuple[str, ...] = ()
    datasheet: str = ""


class _Trained(NamedTuple):
    """A checkpoint, and the weights in it that the run is measured by."""

    place: str
    note: Note
    state: State
    parameters: int


def export(run: str, out: str, wishes: Wishes) -> str:
    """Write a run's model to a folder, and return the digest of its weights.

    A folder that has files of these names is refused, unless its weights are the very same: then
    they are written anew. What else is in it stays.

    Args:
        run: folder of a run, or the JSON of one of its checkpoints. Of a run that kept a moving
            average of the weights, it is that.
        out: folder, local or remote.
        wishes: what else the export is to say.

    Raises:
        TrainingError: no checkpoint; another model in the folder; results that are none, or of
            other weights; data that the model was not trained on.
        CheckpointError: the checkpoint is damaged, or does not fit its own config.
        WitError: something cannot be read or written.
    """
    trained = _trained(run)
    weights = digest_of(trained.state)
    measured = _results_of(wishes.results, weights) if wishes.results else None
    data = lineage.trained_on(trained.note, wishes.data)
    sheets = lineage.datasheets(data, wishes.datasheet)
    subject = model_card.Subject(
        note=trained.note,
        told=lineage.told(trained.place),
        name=wishes.name,
        licence=wishes.licence,
        weights=weights,
        parameters=trained.parameters,
        data=data,
        datasheets=[sheet.link for sheet in sheets],
        results=measured,
    )
    texts = {sheet.link: storage.read_bytes(sheet.source) for sheet in sheets if sheet.source}
    texts[CARD] = model_card.written(subject).encode()
    _publish(out, trained.state, texts, config_of(trained.note))
    return weights


def config_of(note: Note) -> bytes:
    """Return ``open_clip_config.json`` for a checkpoint's model.

    It is the model's own config, but for what only training has: patches are dropped in no export,
    for open_clip gives models in training mode.
    """
    config = copy.deepcopy(note.model)
    config["vision_cfg"].pop("patch_dropout", None)
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    return msgspec.json.format(msgspec.json.encode(Config(config, PREPROCESSING))) + b"\n"


class _Fitted:
    """Takes weights over into a model that has none, if they fit it."""

    def __init__(self, spec: model.Spec) -> None:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            self.network = model.build(spec, seed=0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.network.load_state_dict(state_dict, assign=True)


def _trained(run: str) -> _Trained:
    found = checkpoint.latest(run)
    if found is None:
        raise TrainingError(
            "no checkpoint here",
            where=storage.redact(run),
            fix="name the folder of a run of `wit train`",
        )
    note = checkpoint.read_note(found)
    fitted = _Fitted(model.checked(note.model))
    checkpoint.load(found, {checkpoint.part_to_use(note): fitted})
    # of the state, what is not stored with a model is not part
    named = sorted(fitted.network.state_dict().items())
    state = {k: (v.float() if v.is_floating_point() else v).contiguous() for k, v in named}
    return _Trained(found, note, state, sum(p.numel() for p in fitted.network.parameters()))


def _results_of(place: str, weights: str) -> Results:
    found = results.read(place)
    if found.weights != weights:
        raise TrainingError(
            f"results of other weights: {found.weights}, not {weights}",
            where=storage.redact(place),
            fix="measure this checkpoint with `wit eval`, and give its results",
        )
    return found


def _publish(out: str, state: State, texts: dict[str, bytes], config: bytes) -> None:
    place = storage.join(out, WEIGHTS[0])
    with storage.publish(place) as path:
        try:
            path.touch()
            usual = path.stat().st_mode  # safetensors' own is for one user's eyes
            # of more than one entry, safetensors would write the metadata in any order
            save_file(state, path, metadata={"format": "pt"})
            path.chmod(usual)
        except SafetensorError as error:  # hides what the disk says
            raise StorageError(
                f"cannot write: {first_line(error)}", where=storage.redact(place), fix="free space"
            ) from error
        _refuse_to_overwrite(out, {WEIGHTS[0], CONFIG, *texts}, path)
        storage.remove(storage.join(out, CONFIG))  # until all is there anew
    for name, text in texts.items():
        storage.publish_bytes(storage.join(out, name), text)
    storage.publish_bytes(storage.join(out, CONFIG), config)


def _refuse_to_overwrite(out: str, names: set[str], weights: Path) -> None:
    """Refuse a folder that has any of the files, unless its weights are the same."""
    there = storage.sizes(out)
    taken = sorted(names & there.keys())
    same_size = there.get(WEIGHTS[0]) == weights.stat().st_size
    if not taken or (same_size and _digest(storage.join(out, WEIGHTS[0])) == _digest(str(weights))):
        return
    raise TrainingError(
        f"the folder has {', '.join(taken)}, and not of this model",
        where=storage.redact(out),
        fix="give another --out, or remove what is there",
    )


def _digest(place: str) -> str:
    found = xxhash.xxh3_128()
    with storage.open_read(place) as stream:
        while piece := stream.read(_PIECE_BYTES):
            found.update(piece)
    return found.hexdigest()
