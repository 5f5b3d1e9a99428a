"""Naming pictures among classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, top_k_accuracy_score

from tests.train.evaluate.sketches import Sketches, network
from tests.train.many_ranks import over_ranks
from wit_builder.errors import TrainingError
from wit_train import decode, ranks
from wit_train.evaluate.features import UNDECODABLE
from wit_train.evaluate.item import TestSet
from wit_train.evaluate.prompts import class_features
from wit_train.evaluate.results import PREDICTIONS
from wit_train.evaluate.retrieval import retrieval, sides
from wit_train.evaluate.zero_shot import Measured, zero_shot

CLASSES = ["owl", "apple", "zebra", "ox", "boat", "tree", "star"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep classifiers out of the home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def by_hand(test: TestSet) -> np.ndarray:
    """Return the scores of all pictures and classes, one picture after the other."""
    model = network()
    class_CD = class_features(model, test.classes, ["a {}"])
    rows = []
    for item in test.items():
        pixels = decode.pixels(item.read())
        assert pixels is not None
        rows.append(model.images([model.prepared(pixels)]) @ class_CD.T)
    return torch.cat(rows).numpy()


def test_scores_are_scikit_learns():
    """Top-1, top-5, mean per class, and what single predictions say, of 150 pictures."""
    test = Sketches(150, CLASSES)
    scores, target = by_hand(test), np.arange(150) % 7
    found, table = zero_shot(network(), test, ["a {}"])
    labels = np.arange(7)
    for k, name in ((1, "top1"), (5, "top5")):
        expected = top_k_accuracy_score(target, scores, k=k, labels=labels)
        assert found.scores[name].value == pytest.approx(expected)
        assert found.scores[name].chance == pytest.approx(k / 7)
    mean = balanced_accuracy_score(target, scores.argmax(1))
    assert found.scores["mean_per_class"].value == pytest.approx(mean)
    assert table.schema == PREDICTIONS
    assert table["predicted"].to_pylist() == scores.argmax(1).tolist()
    np.testing.assert_allclose(table["score"].to_numpy(), scores.max(1), atol=1e-6)
    order = np.argsort(-scores, axis=1)[:, :5]
    assert table["top5"].to_pylist() == order.tolist()
    best = np.sort(scores, axis=1)
    np.testing.assert_allclose(table["margin"].to_numpy(), best[:, -1] - best[:, -2], atol=1e-6)
    assert "roc_auc" not in found.scores


def test_two_classes_have_a_roc_curve():
    """Its area is scikit-learn's, of the difference of the two cosines."""
    test = Sketches(41, CLASSES[:2])
    scores = by_hand(test)
    found = zero_shot(network(), test, ["a {}"]).result
    expected = roc_auc_score(np.arange(41) % 2, scores[:, 1] - scores[:, 0])
    assert found.scores["roc_auc"].value == pytest.approx(expected)
    assert "top5" not in found.scores


def test_what_is_not_measured_is_told():
    """Pictures that do not decode, by name; classes that have no picture."""
    test = Sketches(6, CLASSES, damaged={2, 5})
    found, table = zero_shot(network(), test, ["{}"])
    assert (found.pictures, found.classes) == (4, 7)
    assert found.undecodable == ["picture 2", "picture 5"]
    assert found.left_out == {UNDECODABLE: 2}
    assert found.empty_classes == ["zebra", "tree", "star"]
    assert table["index"].to_pylist() == [0, 1, 3, 4]


def test_nothing_to_measure_is_an_error():
    """No score is made up for a set without a picture that decodes."""
    with pytest.raises(TrainingError, match=r"no picture .* can be measured.*\[sketches\]"):
        zero_shot(network(), Sketches(2, CLASSES, damaged={0, 1}), ["{}"])


def test_classes_with_one_name_are_told_apart_as_by_argmax():
    """Of two equal classes the first is always the answer: half of their pictures are right."""
    test = Sketches(20, ["owl", "owl"])
    found, table = zero_shot(network(), test, ["a {}"])
    assert found.scores["top1"].value == 0.5
    right = table["target"].to_numpy() == table["predicted"].to_numpy()
    assert right.tolist() == [rank == 0 for rank in table["rank"].to_pylist()]


def test_each_wording_is_measured_alone():
    """Beside all together; the share is the one that it has when it is the only one."""
    test, templates = Sketches(30, CLASSES), ["a {}", "{} of all", "{}"]
    found = zero_shot(network(), test, templates, compare=True).result
    assert [prompt.wording for prompt in found.prompts] == templates
    for prompt in found.prompts:
        alone = zero_shot(network(), test, [prompt.wording]).result
        assert alone.scores["top1"] == prompt.top1
    together = zero_shot(network(), test, templates).result
    assert found.scores == together.scores


def test_pictures_are_not_read_far_ahead():
    """A set may be larger than memory: of 1,000 pictures a few batches are on the way."""
    test, furthest = Sketches(1000, CLASSES), 0
    items = test.items

    def watched(rank=0, world_size=1):
        nonlocal furthest
        for item in items(rank, world_size):
            done = seen["count"]
            furthest = max(furthest, test.read - done)
            yield item

    seen = {"count": 0}
    model = network()
    images = model.images

    def counted(prepared):
        seen["count"] += len(prepared)
        return images(prepared)

    model.images = counted  # type: ignore[method-assign]
    test.items = watched  # type: ignore[method-assign]
    assert zero_shot(model, test, ["{}"]).result.pictures == 1000
    assert furthest <= (torch.get_num_threads() + 4) * 64


def _in_a_world(_: int = 0) -> tuple[Measured, object]:
    with ranks.joined(64, 60) as own:
        assert own is not None
        model = network()
        named = zero_shot(
            model, Sketches(31, CLASSES, damaged={3, 8}), ["a {}", "{}"], own, compare=True
        )
        captioned = Sketches(9, captions=2, damaged={4})
        return named, retrieval(sides(model, captioned, own), captioned)


def test_ranks_share_the_pictures():
    """Two ranks both return what one finds: every picture once, in the order of the set."""
    alone = _in_a_world()
    for shared in over_ranks(2, _in_a_world):
        assert shared[0].predictions["index"].to_pylist() == [
            i for i in range(31) if i not in (3, 8)
        ]
        columns = ["index", "target", "predicted", "rank"]
        assert shared[0].predictions.select(columns) == alone[0].predictions.select(columns)
        assert shared[0].result == alone[0].result
        assert shared[1] == alone[1]
