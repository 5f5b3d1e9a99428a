"""Templates, and the classifier made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from open_clip import zero_shot_metadata

from tests.train.evaluate.sketches import network
from wit_builder.errors import TrainingError
from wit_train.embedding import Embedding
from wit_train.evaluate.prompts import class_features, ensemble, templates_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of classifiers that were made before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "wit-builder/classifiers"


def test_templates_come_from_options_files_and_the_set(tmp_path: Path):
    """Those asked for go before the test set's own; the bare name is what is left."""
    file = tmp_path / "own.txt"
    file.write_text("a sketch of {c}.\n\n {} \n")
    assert templates_of(["a {}", "a {}"], str(file), ["no {}"]) == ["a {}", "a sketch of {}.", "{}"]
    assert templates_of([], "", ["a photo of a {c}."]) == ["a photo of a {}."]
    assert templates_of([], "", []) == ["{}"]


def test_open_clips_templates_are_known_by_name():
    """The 80 of the CLIP paper, and the 7."""
    found = templates_of([], "imagenet", [])
    assert [t.replace("{}", "owl") for t in found] == [
        make("owl") for make in zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES
    ]
    assert len(templates_of([], "simple", [])) == 7


def test_templates_that_name_nothing_are_refused(tmp_path: Path):
    """One without a place for the name, wherever it comes from; an empty file; none at all."""
    (tmp_path / "bad.txt").write_text("a {}\na photo\n")
    (tmp_path / "empty.txt").write_text("\n")
    for given, place, own, words in (
        (["a photo"], "", [], r"no {} for the name in the template 'a photo' \[--template\]"),
        ([], str(tmp_path / "bad.txt"), [], r"'a photo' \[.*bad.txt\]"),
        ([], "", ["of a"], r"'of a' \[the test set\]"),
        ([], str(tmp_path / "empty.txt"), [], r"no templates \[.*empty.txt\]"),
    ):
        with pytest.raises(TrainingError, match=words):
            templates_of(given, place, own)
    with pytest.raises(TrainingError, match="no such file of templates, and none of imagenet, s"):
        templates_of([], str(tmp_path / "none.txt"), [])


@pytest.mark.usefixtures("cache")
def test_a_class_is_the_normalised_mean_of_its_prompts():
    """CLIP paper, section 3.1.4; and so is what is put together of single templates."""
    model, classes, templates = network(), ["owl", "red apple"], ["a {}", "{} icon", "{}"]
    found = class_features(model, classes, templates)
    for row, name in enumerate(classes):
        mean = model.texts([t.replace("{}", name) for t in templates]).mean(0)
        torch.testing.assert_close(found[row], mean / mean.norm())
    single = [class_features(model, classes, [template]) for template in templates]
    torch.testing.assert_close(ensemble(single), found)


def test_a_classifier_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The same weights, names and templates are read back, others are not, damage is no harm."""
    asked: list[str] = []
    texts = Embedding.texts

    def counted(self, given):
        asked.extend(given)
        return texts(self, given)

    monkeypatch.setattr(Embedding, "texts", counted)
    first = class_features(network(), ["owl", "ox"], ["a {}"])
    assert asked == ["a owl", "a ox"]
    assert torch.equal(class_features(network(), ["owl", "ox"], ["a {}"]), first)
    assert len(asked) == 2
    for weights, classes, templates in (
        (1, ["owl", "ox"], ["a {}"]),
        (0, ["owlox"], ["a {}"]),
        (0, ["owl", "ox"], ["{}"]),
    ):
        before = len(asked)
        class_features(network(weights), classes, templates)
        assert len(asked) > before
    same_weights = network()
    same_weights._config = {"quick_gelu": True}
    before = len(asked)
    class_features(same_weights, ["owl", "ox"], ["a {}"])
    assert len(asked) > before
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-10])
    before = len(asked)
    assert torch.equal(class_features(network(), ["owl", "ox"], ["a {}"]), first)
    assert len(asked) == before + 2


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A file stands where its folder would be."""
    (tmp_path / "wit-builder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert class_features(network(), ["owl"], ["{}"]).shape == (1, 16)
