"""``wit eval`` from its options to its files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from torch.distributed.elastic.multiprocessing import SignalException

from tests.train.evaluate.sketches import Sketches, class_folders
from wit_builder import recipe as recipes
from wit_builder.errors import MissingPartError, StorageError, TrainingError
from wit_train import commands, evaluating, loop
from wit_train.config import TrainRecipe
from wit_train.evaluate import results
from wit_train.evaluate.results import PREDICTIONS, Results
from wit_train.evaluate.run import _numbers

CLASSES = ["owl", "red apple", "zebra"]


@pytest.fixture(scope="module")
def run(recipe_file_of_a_module: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose model has learned a little."""
    out = str(tmp_path_factory.mktemp("run"))
    loop.train(recipes.load(str(recipe_file_of_a_module), TrainRecipe, ["steps=4"]), out)
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of three classes; a picture of the last does not decode."""
    root = class_folders(tmp_path_factory.mktemp("pictures"), CLASSES, 4)
    (root / "zebra/bad.jpg").write_bytes(b"not a picture")
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is cached out of the home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_all_is_measured_in_one_go(
    run: str, pictures: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Zero-shot, retrieval, probes and overlap in one JSON file, with a table and a page beside."""
    learned = class_folders(tmp_path / "train", CLASSES, 5, first=10)
    out = tmp_path / "eval"
    commands.evaluate(
        run,
        images=str(pictures),
        template=["a {}", "{}"],
        compare_prompts=True,
        pairs=shards,
        train=str(learned),
        few_shot="1,2",
        overlap=[shards],
        out=str(out),
        json=True,
    )
    printed = capsys.readouterr()
    found = results.read(str(out))
    assert json.loads(printed.out) == json.loads((out / "results.json").read_text())
    assert f"zero-shot on {pictures}" in printed.err
    assert found.zero_shot
    assert found.retrieval
    assert found.probe
    assert found.overlap
    assert (found.step, found.model) == (4, run)
    assert (found.zero_shot.pictures, found.zero_shot.undecodable) == (12, ["zebra/bad.jpg"])
    assert found.zero_shot.scores["top1"].chance == pytest.approx(1 / 3)
    assert [prompt.wording for prompt in found.zero_shot.prompts] == ["a {}", "{}"]
    assert (found.retrieval.pictures, found.retrieval.texts) == (70, 70)
    assert found.retrieval.scores["text_by_image_r5"].chance == pytest.approx(5 / 70)
    assert found.probe.train + found.probe.validation == 15
    assert found.probe.result.scores["top1"].value == 1.0  # their colours tell the classes apart
    assert [shot.shots for shot in found.probe.few_shot] == [1, 2]
    assert (found.overlap.overlapping, found.overlap.pictures) == (0, 12)
    for result in (found.zero_shot, found.retrieval, found.probe.result):
        for score in result.scores.values():
            assert 0 <= (score.low or 0) <= score.value <= (score.high or 0) <= 1
    table = pq.read_table(out / "predictions.parquet")
    assert table.schema == PREDICTIONS
    assert json.loads(table.schema.metadata[results.CLASSES]) == CLASSES
    assert len(table) == 12
    page = (out / "index.html").read_text()
    assert "red apple" in page
    assert "bad.jpg" in page


def test_a_table_is_printed(run: str, pictures: Path, capsys: pytest.CaptureFixture[str]):
    """What was left out stands there, too; nothing is written without a folder for it."""
    names = pictures.parent / "names.txt"
    names.write_text("\n".join([*CLASSES, "griffin"]))
    commands.evaluate(run, images=str(pictures), names=str(names))
    printed = capsys.readouterr().out
    for words in ("zero-shot top1", "25.000%", "does not decode", "classes with no picture"):
        assert words in printed


def test_the_same_question_gets_the_same_files(run: str, pictures: Path, shards: str, tmp_path):
    """To the byte, from the same model on the same machine."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        commands.evaluate(run, images=str(pictures), pairs=shards, out=str(folder))
    for name in ("results.json", "predictions.parquet", "index.html"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second


def test_processes_share_an_evaluation(
    run: str, pictures: Path, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two of them, started by one command, write what one does, and leave nothing behind."""
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    asked: dict[str, Any] = {"images": str(pictures), "pairs": shards}
    commands.evaluate(run, **asked, out=str(tmp_path / "one"))
    before = dict(os.environ)
    commands.evaluate(run, **asked, out=str(tmp_path / "two"), processes=2)
    assert dict(os.environ) == before
    one, two = (results.read(str(tmp_path / name)) for name in ("one", "two"))
    assert two == one
    assert not list(temporary.iterdir())


def test_a_process_that_fails_ends_all(run: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """The command fails in one line; what was wrong is said by the process itself."""
    with pytest.raises(TrainingError, match="of 2 processes failed"):
        commands.evaluate(run, images=str(tmp_path / "none"), processes=2)
    assert "wit eval: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "evaluate on what"),
        ({"pairs": "x", "train": "x"}, "--train needs --images"),
        ({"images": "x", "overlap": ["x"]}, "--overlap needs --out"),
        ({"images": "x", "few_shot": "1"}, "--few-shot needs --train"),
        ({"images": "x", "train": "x", "few_shot": "0"}, "no list of numbers"),
        ({"images": "x", "train": "x", "few_shot": "a few"}, "no list of numbers"),
        ({"images": "x", "validation": "x"}, "--validation needs --train"),
        ({"pairs": "x", "compare_prompts": True}, "--compare-prompts needs --images"),
        ({"pairs": "x", "names": "x"}, "--names needs --images"),
        ({"pairs": "x", "template": ["a {}"]}, "--template needs --images"),
        ({"images": "x", "threshold": 0.9}, "--threshold needs --overlap"),
        ({"images": "x", "distance": 3}, "--distance needs --overlap"),
        ({"images": "x", "overlap": ["x"], "out": "x", "threshold": 7.0}, "between -1 and 1"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "-".join(value),
)
def test_questions_that_lack_a_part_are_refused(asked: dict[str, Any], words: str):
    """Before anything is read."""
    with pytest.raises(TrainingError, match=words):
        commands.evaluate("no such model", **asked)


def test_a_folder_with_something_else_is_left_alone(run: str, pictures: Path, tmp_path: Path):
    """The test set itself, another program's page, a file; and that before anything is measured."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in (pictures, tmp_path / "site"):
        with pytest.raises(TrainingError, match="something else is in the folder"):
            commands.evaluate(run, images=str(pictures), out=str(out))
    with pytest.raises(StorageError):
        commands.evaluate(run, images=str(pictures), out=str(tmp_path / "file"))
    assert (tmp_path / "site/index.html").read_text() == "mine"
    assert sorted(path.name for path in pictures.iterdir()) == CLASSES


def test_more_shots_than_pictures_are_refused(run: str, pictures: Path, tmp_path: Path):
    """A figure for 50 of each class is not made of 4."""
    learned = class_folders(tmp_path / "train", CLASSES, 5, first=10)
    with pytest.raises(TrainingError, match="no class has 50 examples to draw from, the largest 4"):
        commands.evaluate(run, images=str(pictures), train=str(learned), few_shot="50")


def test_equal_names_are_learned_apart():
    """Two classes of one name keep their numbers; another order of such names is refused."""
    judged = Sketches(3, ["crane", "ox", "crane"])
    assert _numbers(Sketches(3, ["crane", "ox", "crane"]), judged).tolist() == [0, 1, 2]
    assert _numbers(Sketches(3, ["b", "a"]), Sketches(3, ["a", "b"])).tolist() == [1, 0]
    with pytest.raises(TrainingError, match="two classes of one name"):
        _numbers(Sketches(3, ["ox", "crane"]), judged)


@pytest.mark.parametrize("question", ['{"model": "m", "imagse": "x"}', "x", "", '{"images": "x"}'])
def test_a_process_needs_a_question(question: str):
    """What torchrun is given wrongly is told in one line."""
    with pytest.raises(SystemExit, match="not a question in JSON"):
        evaluating.main([question])


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_all_processes(number: signal.Signals, status: int, monkeypatch):
    """The command ends as one that a signal ended, without a traceback. torch's agent is a fake."""

    def interrupted(*_: object):
        def agent(*_: object):
            if number == signal.SIGHUP:
                raise SignalException("as the real one does", number)
            signal.raise_signal(number)

        return agent

    monkeypatch.setattr(evaluating, "elastic_launch", interrupted)
    with pytest.raises(SystemExit) as ended:
        commands.evaluate("model", images="x", processes=2)
    assert ended.value.code == status


def test_classes_to_learn_must_be_those_of_the_test(run: str, pictures: Path, tmp_path: Path):
    """A training set with another class is refused by its name."""
    other = class_folders(tmp_path / "other", ["owl", "griffin"], 2)
    with pytest.raises(TrainingError, match=r"1 classes are not among .* 'griffin'"):
        commands.evaluate(run, images=str(pictures), train=str(other))


def test_what_is_no_result_is_refused(tmp_path: Path):
    """The error names the file."""
    (tmp_path / "results.json").write_text('{"model": 3}')
    with pytest.raises(TrainingError, match=r"no results of an evaluation.*results.json\]"):
        results.read(str(tmp_path))
    kept = Results(model="m", weights="0" * 32)
    (tmp_path / "results.json").write_bytes(results.encoded(kept))
    assert results.read(str(tmp_path)) == kept


def test_commands_load_without_torch():
    """Finding the commands costs no import of torch."""
    code = "import sys, wit_train.commands; assert not {'torch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """``wit train`` and ``wit eval`` in a plain installation name the extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPartError, match=r"pip install 'wit-builder\[train\]'"):
        commands.train("recipe.toml")
    with pytest.raises(MissingPartError, match=r"wit eval needs .*'wit-builder\[train\]'"):
        commands.evaluate("run", images="pictures")
