"""Features by any model: as open_clip itself gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from PIL import Image

from tests.train.evaluate.sketches import network
from tests.train.tiny import TINY
from wit_builder import recipe as recipes
from wit_builder import storage
from wit_builder.errors import CheckpointError, RecipeError, TrainingError
from wit_train import checkpoint, embedding, loop, trained
from wit_train.config import TrainRecipe
from wit_train.embedding import Embedding

TEXTS = ["an owl", "Zwei rote Äpfel, im Korb!"]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Pictures of several shapes."""
    draw = np.random.default_rng(0).integers
    return [draw(0, 256, (h, w, 3), np.uint8) for h, w in ((40, 50), (90, 33), (32, 32), (20, 61))]


def exported(folder: Path, preprocess: dict[str, Any], **changes: Any) -> str:
    """Write a tiny model as ``local-dir:`` takes it."""
    folder.mkdir()
    config = {"model_cfg": {**TINY, **changes}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = network(3).network.state_dict()
    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors"
    )
    return str(folder)


def by_open_clip(place: str, images: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of pictures and texts as its documentation makes them."""
    model, _, transform = open_clip.create_model_and_transforms(place)
    model.eval()
    with torch.inference_mode():
        image = torch.stack([transform(Image.fromarray(pixels)) for pixels in images])
        tokens = open_clip.get_tokenizer(place)(TEXTS)
        return model.encode_image(image, normalize=True), model.encode_text(tokens, normalize=True)


def features(model: Embedding, images: list[np.ndarray]) -> torch.Tensor:
    """Return the features of pictures by us."""
    return model.images([model.prepared(pixels) for pixels in images])


@pytest.mark.parametrize(
    "preprocess",
    [
        {},
        {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
        {"interpolation": "bilinear"},
        {"resize_mode": "longest", "fill_color": 7},
    ],
    ids=["usual", "squash", "bilinear", "longest"],
)
def test_features_are_open_clips(preprocess: dict[str, Any], tmp_path: Path, images):
    """Pictures are prepared as the model's own config asks, texts by its own tokenizer."""
    folder = exported(tmp_path / "model", preprocess)
    model = trained.load(folder)
    image, text = by_open_clip(f"local-dir:{folder}", images)
    torch.testing.assert_close(features(model, images), image, rtol=0, atol=2e-6)
    torch.testing.assert_close(model.texts(TEXTS), text, rtol=0, atol=2e-6)
    by_schema = trained.load(f"local-dir:{folder}")
    assert by_schema.digest == model.digest
    assert model.name == folder


def test_a_model_in_a_bucket_is_copied_and_read(s3_folder: str, tmp_path: Path, images):
    """What was exported to ``s3://`` gives the same features."""
    folder = exported(tmp_path / "model", {})
    for file in Path(folder).iterdir():
        storage.publish_bytes(storage.join(s3_folder, file.name), file.read_bytes())
    there, here = trained.load(s3_folder), trained.load(folder)
    coarse = trained.load(folder, precision="bf16")
    assert coarse.identity != here.identity
    torch.testing.assert_close(features(coarse, images), features(here, images), rtol=0, atol=0.02)
    assert there.digest == here.digest
    assert torch.equal(features(there, images), features(here, images))


def test_features_before_the_projection(images):
    """Of a ViT those that its projection makes the embedding of; it is left as it was."""
    model = network()
    prepared = [model.prepared(pixels) for pixels in images]
    before = model.unprojected(prepared)
    with torch.inference_mode():
        embedded = before @ model.network.visual.proj
    torch.testing.assert_close(
        torch.nn.functional.normalize(embedded, dim=-1), model.images(prepared)
    )
    assert not torch.allclose(before.norm(dim=-1), torch.ones(len(images)))


def test_features_that_are_no_numbers_are_an_error(images):
    """Rather than a score, which would be anything."""
    model = network()
    with torch.no_grad():
        model.network.visual.proj[0, 0] = torch.nan
        model.network.text_projection[0, 0] = torch.inf
    for ask in (lambda: features(model, images), lambda: model.texts(TEXTS)):
        with pytest.raises(TrainingError, match=r"features that are no numbers.*\[tiny 0\]"):
            ask()


def test_batches_are_computed_at_once_and_come_in_order(images):
    """Each by one thread of torch, so features do not depend on how many cores there are."""
    model = network()
    before = torch.get_num_threads()
    prepared = [model.prepared(pixels) for pixels in images]
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        seen = list[int]()

        def encode(i: int, seen=seen) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return model.images(prepared[i % 4 :])

        found.append(list(model.at_once(encode, range(12))))
        assert seen == [1] * 12
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


def test_the_digest_is_of_the_weights():
    """Equal for equal weights; another for other values, names or shapes."""
    assert network(1).digest == network(1).digest
    assert network(1).digest != network(2).digest
    a, b = torch.zeros(2, 3), torch.zeros(3, 2)
    found = {embedding.digest_of(state) for state in ({"x": a}, {"x": b}, {"y": a}, {})}
    assert len(found) == 4


def test_a_run_is_measured_by_its_moving_average(recipe_file: Path, tmp_path: Path):
    """Where it kept one; the step is that of the checkpoint."""
    out = str(tmp_path / "run")
    changes = ["steps=3", "optimiser.ema_decay=0.5"]
    loop.train(recipes.load(str(recipe_file), TrainRecipe, changes), out)
    model = trained.load(out)
    assert model.step == 3
    place = checkpoint.latest(out)
    assert place is not None
    digests = []
    for part in ("ema", "model"):
        kept = trained.load(place).network
        checkpoint.load(place, {part: kept})
        digests.append(embedding.digest_of(kept.state_dict()))
    assert model.digest == digests[0] != digests[1]


def test_models_that_are_not_there_are_refused(tmp_path: Path):
    """The error says what to name instead; weights of another model are told as such."""
    with pytest.raises(TrainingError, match="neither a checkpoint nor an exported folder"):
        trained.load(str(tmp_path))
    with pytest.raises(TrainingError, match=r"which weights of it.*--pretrained TAG"):
        trained.load("ViT-B-32")
    with pytest.raises(RecipeError, match="says itself where its weights are"):
        trained.load("local-dir:x", "openai")
    pickled = tmp_path / "weights.pt"
    pickled.write_bytes(b"no weights at all, but some words that are long enough to be read")
    with pytest.raises(CheckpointError) as caught:
        trained.load("ViT-B-32", str(pickled))
    assert "weights_only" not in str(caught.value)
    with pytest.raises(RecipeError, match=r"no model 'ViT-B-33'.*did you mean 'ViT-B-32'"):
        trained.load("ViT-B-33", "openai")
    with pytest.raises(RecipeError, match=r"neither a file nor a tag.*tags: .*openai"):
        trained.load("ViT-B-32", "opanai")
    with pytest.raises(CheckpointError, match=r"open_clip cannot make this model.*\[local-dir:"):
        trained.load(f"local-dir:{tmp_path}/none")
    folder = exported(tmp_path / "other", {}, embed_dim=24)
    with pytest.raises(CheckpointError, match=r"cannot make this model: .*size mismatch"):
        trained.load(folder)
    weights = tmp_path / "other/open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cannot make this model: .*\[.*other\]"):
        trained.load(folder)
