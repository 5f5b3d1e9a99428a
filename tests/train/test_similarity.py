"""The similarity filter: cosines of a model's features."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from tests.train.conftest import pair
from wit_builder import recipe as recipes
from wit_builder.errors import MissingPartError, RecipeError, TrainingError
from wit_train import decode, loop
from wit_train.config import TrainRecipe
from wit_train.similarity import Pixels, Similarity

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def pictures(count: int, side: int = 40) -> list[Pixels]:
    """Return pictures of different shapes."""
    draw = np.random.default_rng(0).integers
    return [draw(0, 256, (side + 3 * n, side, 3), np.uint8) for n in range(count)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of a tiny model's weights, which open_clip knows as ``tiny``."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny").state_dict(), folder / "tiny.pt")
    return str(folder / "tiny.pt")


def test_it_is_offered_as_a_filter():
    """An installed trainer is found by ``filters.name = "similarity"``."""
    (entry,) = entry_points(group="wit.filters", name="similarity")
    assert entry.load() is Similarity


def test_scores_are_cosines_of_open_clips_own_features(weights: str):
    """As open_clip's transform, tokens and model give them."""
    images, texts = pictures(3), ["a dog", "zwei Katzen", ""]
    scores, objections = Similarity(weights, model="tiny")(images, texts, None)
    model, transform = open_clip.create_model_from_pretrained("tiny", weights)
    with torch.inference_mode():
        a = model.eval().encode_image(torch.stack([transform(Image.fromarray(i)) for i in images]))
        b = model.encode_text(open_clip.get_tokenizer("tiny")(texts))
    expected = torch.nn.functional.cosine_similarity(a, b).tolist()
    assert scores["score"] == pytest.approx(expected, abs=1e-6)
    assert objections == [None] * 3


def test_the_same_pairs_get_the_same_scores(weights: str):
    """To the bit, by another filter of the same options, whatever torch was set to."""
    images, texts = pictures(5), [f"picture {n}" for n in range(5)]
    before = torch.get_num_threads()
    first = Similarity(weights, model="tiny")(images, texts, None)
    torch.set_num_threads(before + 1)
    try:
        again = Similarity(weights, model="tiny")(images, texts, None)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert first == again
    parts = Similarity(weights, model="tiny", batch=2)(images, texts, None)
    assert parts[0]["score"] == pytest.approx(first[0]["score"], abs=1e-6)


def test_no_pictures_give_the_name_of_the_score(weights: str):
    """As a filter is asked first."""
    assert Similarity(weights, model="tiny")([], [], None) == ({"score": []}, [])


def test_a_model_of_our_own_prefers_true_pairs(recipe_file: Path, tmp_path: Path):
    """After a few steps, pairs it was trained on score higher than the same ones shuffled."""
    changes = ["steps=120", "optimiser.learning_rate=1e-3"]
    out = str(tmp_path / "run")
    outcome = loop.train(recipes.load(str(recipe_file), TrainRecipe, changes), out)
    samples = [pair(n) for n in range(70)]
    images = [decoded for s in samples if (decoded := decode.pixels(s.jpg)) is not None]
    texts = [s.metadata.caption for s in samples]
    similarity = Similarity(out)
    true, shuffled = (
        np.mean(similarity(images, told, None)[0]["score"])
        for told in (texts, texts[1:] + texts[:1])
    )
    assert true > shuffled
    assert Similarity(outcome.checkpoint)(images, texts, None) == similarity(images, texts, None)


@pytest.mark.parametrize(
    ("model", "pretrained", "words"),
    [
        ("ViT-B-33", "openai", "no model 'ViT-B-33'.*did you mean 'ViT-B-32'"),
        ("ViT-B-32", "opanai", "no weights 'opanai' of ViT-B-32.*tags: .*openai"),
    ],
)
def test_what_open_clip_does_not_know_is_refused(model: str, pretrained: str, words: str):
    """Nothing is downloaded to find out."""
    with pytest.raises(RecipeError, match=words):
        Similarity(pretrained, model=model)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path):
    """As by ``wit eval``."""
    with pytest.raises(TrainingError, match="neither a checkpoint nor an exported folder"):
        Similarity(str(tmp_path))


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """The filter is found in a plain installation, too, and names the extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPartError, match=r"similarity needs .*'wit-builder\[train\]'"):
        Similarity("openai", model="ViT-B-32")
