"""The card of an exported model: what it says, what it keeps to itself, who can read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tests.train.conftest import MakeShards, jpeg
from tests.train.exports import Run, contents, results_of, saved, trained
from tests.train.tiny import TINY
from wit_builder.shards.read import read_info
from wit_train.evaluate.results import encoded
from wit_train.export import Wishes, export


@pytest.fixture(scope="module")
def run(
    recipe_file_of_a_module: Path, shards: str, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Return a run of four steps, exported."""
    return trained(recipe_file_of_a_module, shards, tmp_path_factory.mktemp("run"))


def front_matter(card: str) -> dict[str, Any]:
    """Return what the hub's own parser finds at the top of a card."""
    found: dict[str, Any] = ModelCard(card).data.to_dict()
    return found


def test_card_tells_what_was_trained_on_what(run: Run, tmp_path: Path):
    """Steps, batch, pairs, loss, optimiser, seed and digests are the run's; no place is told."""
    card = contents(run.folder)["README.md"].decode()
    rows = dict(re.findall(r"^\| ([a-z ]+) \| (.*) \|$", card, re.MULTILINE))
    assert (rows["steps"], rows["batch size"], rows["pairs seen"]) == ("4 of 4", "8", "32")
    assert rows["loss"] == "CLIP's contrastive loss"
    assert "learning rate 0.0005" in rows["optimiser"]
    assert rows["these weights"] == "the moving average, decay 0.5"
    assert rows["began with"] == "random weights"
    assert rows["augmentation"] == "a random square crop, as large as fits; jitter: 0.2"
    assert rows["weights"] == f"float32; XXH3-128 {run.weights}"
    info = read_info(run.shards)
    assert f"| `{info.base}` | 70 | {info.shards} | {info.bytes:,} |" in card
    assert "# tiny owl" in card
    assert "/tmp" not in card
    assert str(tmp_path.parent) not in card
    assert front_matter(card) == {
        "library_name": "open_clip",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "wit-builder"],
    }


def test_card_tells_what_came_before(tmp_path: Path):
    """Of weights that were not random their name, no place; sets that training looked at, too."""
    run = Path(saved(TINY, tmp_path / "run"))
    (run / "recipe.toml").write_text(
        '[model]\ninit_from = "/home/somebody/runs/owl/checkpoints/00000007.json"\n'
        '[evaluation]\nimages = "s3://somebody/birds"\npairs = "/home/somebody/captions.txt"\n'
        "every_steps = 1000\n"
    )
    export(str(run), str(tmp_path / "folder"), Wishes())
    card = (tmp_path / "folder/README.md").read_text()
    assert "| began with | weights of owl, 00000007.json |" in card
    assert "measured every 1,000 steps while training, on: birds and captions.txt." in card
    assert "What the weights it began with were trained on is not told here" in card
    assert "somebody" not in card


def test_card_shows_how_to_use_it(run: Run, monkeypatch: pytest.MonkeyPatch, capsys):
    """The code on the card runs in the folder, and prints a probability for each text."""
    code = re.findall(r"^```python\n(.*?)^```$", contents(run.folder)["README.md"].decode(),
                      re.MULTILINE | re.DOTALL)  # fmt: skip
    monkeypatch.chdir(run.folder)
    Path("picture.jpg").write_bytes(jpeg(0))
    try:
        exec(code[0], {})
    finally:
        Path("picture.jpg").unlink()
    found = [float(number) for number in re.findall(r"\d\.\d+", capsys.readouterr().out)]
    assert len(found) == 2
    assert sum(found) == pytest.approx(1, abs=1e-3)


def test_sigmoid_models_have_their_own_code(tmp_path: Path):
    """With a bias of the logits, the card adds it and takes the sigmoid."""
    place = saved({**TINY, "init_logit_bias": -10}, tmp_path / "run")
    export(place, str(tmp_path / "folder"), Wishes())
    card = (tmp_path / "folder/README.md").read_text()
    assert "(logits + model.logit_bias).sigmoid()" in card
    assert "softmax" not in card


def test_card_has_the_results(run: Run, tmp_path: Path):
    """Scores with interval and chance, overlap, and what was not measured; the hub's index, too."""
    (tmp_path / "results.json").write_bytes(encoded(results_of(run.weights)))
    wishes = Wishes(results=str(tmp_path), licence="Apache-2.0", name='Owl "one": <b>')
    export(run.place, str(tmp_path / "folder"), wishes)
    card = (tmp_path / "folder/README.md").read_text()
    zero_shot = "Zero-shot classification | imagenet\\|v2"
    assert (
        f"| {zero_shot} | Top-1 accuracy | 25.00 % | 20.00 % to 30.00 % | 10.00 % | 1,000 pictures,"
        " 10 classes |" in card
    )
    assert f"| {zero_shot} | Top-5 accuracy | 50.00 % | not known | 50.00 % |" in card
    assert "| Retrieval | captions | Texts by picture, R@1 | 25.00 %" in card
    assert "3 left out: not decodable. Prompt: “a photo of a {}”." in card
    assert "looked at while it was trained, nothing here tells" in card
    assert "Of 1,000 test pictures, 12 have" in card
    assert "All less clean: +0.12 points." in card
    assert "no better than on the clean pictures: p = 0.04." in card
    assert "Not measured here: linear probe." in card
    assert "was not looked for" not in card
    assert "secret" not in card
    assert "somebody" not in card
    head = front_matter(card)
    assert head["license"] == "apache-2.0"
    named = head["model-index"][0]
    assert named["name"] == 'Owl "one": <b>'
    assert [r["dataset"]["name"] for r in named["results"]] == ["imagenet|v2", "captions"]
    assert named["results"][0]["metrics"][0] == {
        "type": "accuracy", "name": "Top-1 accuracy", "value": 0.25
    }  # fmt: skip


def test_the_hub_reads_the_card(run: Run, tmp_path: Path):
    """The hub's own parser finds licence, library, task and every score."""
    (tmp_path / "results.json").write_bytes(encoded(results_of(run.weights)))
    export(run.place, str(tmp_path / "folder"), Wishes(results=str(tmp_path), licence="MIT"))
    data = ModelCard.load(tmp_path / "folder/README.md").data
    assert (data.license, data.library_name) == ("mit", "open_clip")
    assert [(r.metric_type, r.metric_value) for r in data.eval_results][:2] == [
        ("accuracy", 0.25), ("top_5_accuracy", 0.5)
    ]  # fmt: skip


def test_datasheet_of_the_build_comes_along(make_shards: MakeShards, tmp_path: Path):
    """``--data`` of a build finds the generation that was trained on, and copies its datasheet."""
    build = tmp_path / "build"
    Path(make_shards(20)).rename(build.parent / "shards")
    for generation in ("g0", "g1"):
        (build / generation).mkdir(parents=True)
    (tmp_path / "shards").rename(build / "g1/shards")
    (build / "report").mkdir()
    (build / "report/datasheet.md").write_text("# Datasheet\n")
    info = read_info(f"{build}/g1/shards")
    place = saved(TINY, tmp_path / "run", data=info.base)
    export(place, str(tmp_path / "folder"), Wishes(data=(str(build),)))
    assert contents(str(tmp_path / "folder"))["datasheet.md"] == b"# Datasheet\n"
    card = (tmp_path / "folder/README.md").read_text()
    assert "[Datasheet](datasheet.md)" in card
    assert f"| `{info.base}` | 20 |" in card
    url = "https://example.org/sheet"
    export(place, str(tmp_path / "linked"), Wishes(datasheet=url))
    assert f"[Datasheet]({url})" in (tmp_path / "linked/README.md").read_text()
