"""Measuring a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from wit_builder import recipe as recipes
from wit_builder.errors import MissingPartError, TrainingError
from wit_train import commands, evaluate, labels, loop
from wit_train.config import TrainRecipe


@pytest.fixture
def run(recipe_file: Path, tmp_path: Path) -> str:
    """A run whose model has learned a little."""
    out = str(tmp_path / "run")
    loop.train(recipes.load(str(recipe_file), TrainRecipe), out)
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of three classes in folders; one does not decode."""
    root = tmp_path / "pictures"
    for number, name in enumerate(["owl", "red apple", "zebra"]):
        (root / name).mkdir(parents=True)
        picture = np.full((20, 30, 3), 80 * number, np.uint8)
        cv2.imwrite(str(root / name / "1.png"), picture)
    (root / "zebra/2.jpg").write_bytes(b"not a picture")
    return root


def test_ranks_count_candidates_that_score_as_well():
    """A tie counts against the right answer, so that constant features score nothing."""
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.5, 0.5], [0.1, 0.9, 0.5]])
    assert evaluate._ranks(scores, torch.tensor([0, 1, 2])).tolist() == [0, 2, 1]


def test_eval_writes_scores_beside_chance(run: str, folder: Path, shards: str, tmp_path: Path):
    """Zero-shot and retrieval in one JSON file: every score between 0 and 1, and its chance."""
    out = tmp_path / "results.json"
    commands.evaluate(run, images=str(folder), template=["a {}"], shards=shards, out=str(out))
    results = json.loads(out.read_text())
    zero_shot, retrieval = results["zero_shot"], results["retrieval"]
    assert (zero_shot["pictures"], zero_shot["classes"], zero_shot["skipped"]) == (3, 3, 1)
    assert zero_shot["scores"]["top1"]["chance"] == pytest.approx(1 / 3)
    assert zero_shot["scores"]["top5"] == {"value": 1.0, "chance": 1.0}
    assert retrieval["pictures"] == 70
    assert retrieval["scores"]["text_by_image_r5"]["chance"] == pytest.approx(5 / 70)
    shares = [s["value"] for r in results.values() for s in r["scores"].values()]
    assert all(0 <= share <= 1 for share in shares)


def test_an_evaluated_model_is_the_trained_one(run: str):
    """Loading twice gives the same features, and they have length one."""
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    first, again = (evaluate.load(run).images(image) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(2))


def test_classes_come_from_folders_lists_and_names(folder: Path, tmp_path: Path):
    """The same pictures from folders, from a list, and among more classes than they have."""
    found = labels.read(str(folder))
    assert found.classes == ["owl", "red apple", "zebra"]
    assert found.targets == [0, 1, 2, 2]
    listed = tmp_path / "list.tsv"
    listed.write_text("pictures/zebra/1.png\tzebra\npictures/owl/1.png\towl\n")
    names = tmp_path / "names.txt"
    names.write_text("zebra\nox\nowl\n")
    of_list = labels.read(str(listed), str(names))
    assert of_list == (
        [f"{tmp_path}/pictures/zebra/1.png", f"{tmp_path}/pictures/owl/1.png"],
        [0, 2],
        ["zebra", "ox", "owl"],
    )


def test_folders_may_be_named_in_classes_json(folder: Path):
    """``classes.json`` gives order and names, also of classes without a picture."""
    named = {"zebra": "a striped horse", "owl": "owl", "none": "nothing", "red apple": "apple"}
    (folder / "classes.json").write_text(json.dumps(named))
    found = labels.read(str(folder))
    assert found.classes == list(named.values())
    assert found.targets == [1, 3, 0, 0]
    assert labels.read(str(folder), str(folder / "classes.json")) == found


def test_wrong_pictures_are_refused(folder: Path, tmp_path: Path):
    """An empty folder, a line without a tab, and a class that is not listed."""
    with pytest.raises(TrainingError, match="no pictures"):
        labels.read(str(tmp_path / "pictures/owl"))
    listed = tmp_path / "list.tsv"
    listed.write_text("a.png\towl\nb.png owl\n")
    with pytest.raises(TrainingError, match=r"without a tab \[.*list.tsv line 2\]"):
        labels.read(str(listed))
    names = tmp_path / "names.txt"
    names.write_text("owl\n")
    with pytest.raises(TrainingError, match="class 'red apple' is not listed"):
        labels.read(str(folder), str(names))


def test_a_place_without_a_checkpoint_is_refused(tmp_path: Path):
    """The error says to name a run's folder."""
    with pytest.raises(TrainingError, match="no checkpoint"):
        evaluate.load(str(tmp_path))


def test_commands_load_without_torch():
    """Finding the commands costs no import of torch."""
    code = "import sys, wit_train.commands; assert not {'torch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """``wit train`` in a plain installation names the extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPartError, match=r"pip install 'wit-builder\[train\]'"):
        commands.train("recipe.toml")
