"""Our figures are clip_benchmark's: on the same features, and of an exported model run by it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
import webdataset
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from sklearn.metrics import balanced_accuracy_score

from benchmarks import clip_benchmark_cli
from tests.train.conftest import jpeg
from tests.train.tiny import TINY
from wit_train import model, trained
from wit_train.checkpoint import Checkpoints, Note
from wit_train.evaluate import statistics
from wit_train.evaluate.ranking import image_ranks, ranks_of, text_ranks
from wit_train.evaluate.sets import opened
from wit_train.evaluate.zero_shot import zero_shot
from wit_train.export import Wishes, export

CLASSES = ["owl", "red apple", "zebra", "fir", "cup", "none of these, nor any other"]
TEMPLATES = ["a photo of a {c}", "{c}, drawn"]


def features(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator), dim=-1)


@pytest.fixture(autouse=True, scope="module")
def _mended() -> None:
    clip_benchmark_cli.mend()


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("seed", range(5))
def test_naming_is_scored_alike(seed: int):
    """Top-1, top-5 and the mean over classes of other sizes, one of them without pictures."""
    drawn = np.random.default_rng(seed)
    target_N = np.minimum(drawn.geometric(0.3, 300) - 1, 8).astype(np.int64)
    score_NC = features(300, 16, seed) @ features(10, 16, seed + 100).T
    target = torch.from_numpy(target_N)
    rank_N = ranks_of(score_NC, target).numpy()
    scores = statistics.classification(rank_N, target_N, 10)
    top1, top5 = zeroshot_classification.accuracy(score_NC, target, topk=(1, 5))
    balanced = balanced_accuracy_score(target_N, score_NC.argmax(1))
    assert scores["top1"].value == pytest.approx(top1, abs=1e-12)
    assert scores["top5"].value == pytest.approx(top5, abs=1e-12)
    assert scores["mean_per_class"].value == pytest.approx(balanced, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_retrieval_is_scored_alike(seed: int):
    """R@1, R@5 and R@10 both ways, one to five captions a picture."""
    drawn = np.random.default_rng(seed)
    owner_M = torch.from_numpy(np.repeat(np.arange(40), drawn.integers(1, 6, 40)))
    image_ND, text_MD = features(40, 8, seed), features(len(owner_M), 8, seed + 100)
    text_MD = F.normalize(text_MD + image_ND[owner_M], dim=-1)
    score_MN = text_MD @ image_ND.T
    own_MN = torch.zeros_like(score_MN, dtype=torch.bool)
    own_MN[torch.arange(len(owner_M)), owner_M] = True
    for rank, scores, own in (
        (image_ranks(image_ND, text_MD, owner_M), score_MN, own_MN),
        (text_ranks(image_ND, text_MD, owner_M), score_MN.T, own_MN.T),
    ):
        found = [(rank < k).tolist() for k in (1, 5, 10)]
        theirs = [zeroshot_retrieval.recall_at_k(scores, own, k) > 0 for k in (1, 5, 10)]
        assert found == [within.tolist() for within in theirs]
        assert 0 < sum(found[0]) < len(rank)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return an exported model of the smallest size, its weights far from their beginning."""
    network = model.build(model.checked(TINY), seed=3)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    note = Note(step=5, data="base", bound={}, model=TINY, precision="fp32")
    with Checkpoints(str(tmp_path / "run"), keep=1) as checkpoints:
        checkpoints.save(note, {"model": network.state_dict()})
    export(str(tmp_path / "run"), str(tmp_path / "folder"), Wishes())
    return str(tmp_path / "folder")


@pytest.fixture
def test_set(tmp_path: Path) -> str:
    """Return a test set in clip_benchmark's layout: two tars, as its own converter names them."""
    root = tmp_path / "pictures"
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    (root / "test/nshards.txt").write_text("2\n")
    for shard in range(2):
        with webdataset.TarWriter(str(root / f"test/{shard}.tar")) as tar:
            for number in range(20 * shard, 20 * shard + 20):
                sample = {"jpg": jpeg(number, 30 + number), "cls": number * number % 5}
                tar.write({"__key__": f"s{number:07d}", **sample})
    return str(root)


def test_clip_benchmark_measures_an_exported_model(folder: str, test_set: str, tmp_path: Path):
    """Its command of docs/export.md gives top-1, top-5 and mean per class of `wit eval`."""
    out = tmp_path / "theirs.json"
    words = f"""eval --model local-dir:{folder} --pretrained none --dataset wds/mine
        --dataset_root {test_set} --output {out} --no_amp --num_workers 0 --batch_size 7"""
    quiet = {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.clip_benchmark_cli", *words.split()],
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(out.read_text())["metrics"]
    ours = _measured(folder, test_set)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name
    assert 0 < theirs["acc1"] < theirs["acc5"] < 1
    assert not math.isclose(theirs["acc1"], theirs["mean_per_class_recall"])


def _measured(folder: str, test_set: str) -> dict[str, float]:
    judged = trained.load(folder, device="cpu")
    test = opened(test_set)
    assert test.templates == TEMPLATES
    scores = zero_shot(judged, test, [t.replace("{c}", "{}") for t in TEMPLATES]).result.scores
    names = {"acc1": "top1", "acc5": "top5", "mean_per_class_recall": "mean_per_class"}
    return {theirs: scores[ours].value for theirs, ours in names.items()}
