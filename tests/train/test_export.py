"""Exported models: what open_clip makes of them, what the card says, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import open_clip
import pytest
import torch
from PIL import Image

from tests.small_disk import small_disk
from tests.train.conftest import MakeShards, jpeg
from tests.train.exports import Run, contents, results_of, saved, trained
from tests.train.tiny import TINY
from wit_builder import storage
from wit_builder.errors import CheckpointError, RecipeError, StorageError, TrainingError, WitError
from wit_train import checkpoint, decode, embedding, model, start
from wit_train.commands_export import export as command
from wit_train.evaluate.results import encoded
from wit_train.export import Wishes, export
from wit_train.trained import load

TEXTS = ["a photo of a cat", "two dogs", "an owl, of all birds, at night in the woods"]
FILES = ["README.md", "open_clip_config.json", "open_clip_model.safetensors"]


@pytest.fixture(scope="module")
def run(
    recipe_file_of_a_module: Path, shards: str, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Return a run of four steps, exported."""
    return trained(recipe_file_of_a_module, shards, tmp_path_factory.mktemp("run"))


def loaded(folder: str) -> tuple[Any, Any, Any]:
    """Return what open_clip makes of a folder: the network, its transform, its tokenizer."""
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return network.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


# --- what open_clip makes of it -----------------------------------------------


def test_open_clip_gives_the_same_embeddings(run: Run):
    """By open_clip's own transform and tokenizer, pictures and texts are where the run has them."""
    network, transform, tokenizer = loaded(run.folder)
    ours = load(run.place, device="cpu")
    jpgs = [jpeg(number, side) for number, side in [(1, 32), (2, 40), (3, 77)]]
    pictures = [pixels for data in jpgs if (pixels := decode.pixels(data)) is not None]
    opened = [Image.open(io.BytesIO(data)) for data in jpgs]
    with torch.inference_mode():
        image_BD = network.encode_image(torch.stack([*map(transform, opened)]), normalize=True)
        text_BD = network.encode_text(tokenizer(TEXTS), normalize=True)
    expected_BD = ours.images([*map(ours.prepared, pictures)])
    torch.testing.assert_close(image_BD, expected_BD, rtol=0, atol=1e-5)
    torch.testing.assert_close(text_BD, ours.texts(TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"custom_text": True, "quick_gelu": True},
        {"init_logit_bias": -10, "init_logit_scale": 2.3},
        {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}},
        {"vision_cfg": {**TINY["vision_cfg"], "patch_dropout": 0.5}},
        {"vision_cfg": {"timm_model_name": "test_byobnet", "timm_model_pretrained": True,
                        "timm_pool": "avg", "timm_proj": "linear", "image_size": 32}},
        {"text_cfg": {**TINY["text_cfg"], "tokenizer_kwargs": {"clean": "canonicalize"}}},
    ],
    ids=["custom text", "sigmoid", "resnet", "patch dropout", "timm", "other tokens"],
)  # fmt: skip
def test_every_kind_of_model_is_whole(tmp_path: Path, changed: dict[str, Any]):
    """Activation, bias, logit scale, statistics, sizes and tokens are the run's."""
    config, folder = {**TINY, **changed}, str(tmp_path / "folder")
    place = saved(config, tmp_path / "run")
    weights = export(place, folder, Wishes())
    network, _, tokenizer = loaded(folder)
    ours = load(place, device="cpu")
    assert embedding.digest_of(network.state_dict()) == ours.digest == weights
    assert torch.equal(
        tokenizer(TEXTS), torch.from_numpy(model.tokenizer_of(model.checked(config))(TEXTS)).long()
    )
    image_BCHW = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            network.encode_image(image_BCHW), ours.network.encode_image(image_BCHW)
        )


def test_training_s_own_ways_stay_behind(tmp_path: Path):
    """No patches are dropped, though open_clip gives models in training mode; timm asks nobody."""
    timm = {"timm_model_name": "test_byobnet", "timm_model_pretrained": True, "image_size": 32}
    for name, vision in (("vit", {**TINY["vision_cfg"], "patch_dropout": 0.5}), ("timm", timm)):
        place = saved({**TINY, "vision_cfg": vision}, tmp_path / f"{name} run")
        export(place, str(tmp_path / name), Wishes())
        text = (tmp_path / name / "open_clip_config.json").read_text()
        assert "patch_dropout" not in text
        assert "true" not in text


def test_weights_are_the_moving_average(run: Run):
    """Of a run that kept one, as `wit eval` takes it; they are not the plain weights."""
    state = loaded(run.folder)[0].state_dict()
    found = checkpoint.latest(run.place)
    assert found
    parts = {name: start._Taker() for name in ("model", "ema")}
    checkpoint.load(found, parts)
    assert embedding.digest_of(state) == embedding.digest_of(parts["ema"].state) == run.weights
    assert embedding.digest_of(parts["model"].state) != run.weights
    assert load(run.folder, device="cpu").digest == run.weights


def test_the_same_checkpoint_gives_the_same_bytes(run: Run, tmp_path: Path):
    """Twice, and from the checkpoint's JSON as from the run: every file is equal."""
    found, folder = checkpoint.latest(run.place), str(tmp_path / "again")
    assert found
    export(found, folder, Wishes(data=(run.shards,)))
    assert list(contents(folder)) == FILES
    assert contents(folder) == contents(run.folder)


# --- training goes on from it ---------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_training_starts_from_it(run: Run, prefix: str):
    """``model.init_from`` takes the folder: the network has its weights, all of them."""
    config = json.loads(contents(run.folder)["open_clip_config.json"])["model_cfg"]
    spec = model.checked(config)
    network = model.build(spec, seed=9)
    start.start_from(network, spec, prefix + run.folder)
    assert embedding.digest_of(network.state_dict()) == run.weights


def test_it_lives_in_a_bucket(run: Run, s3_folder: str):
    """An export to S3 has the same files, and training starts from there."""
    export(run.place, s3_folder, Wishes(data=(run.shards,)))
    assert contents(s3_folder) == contents(run.folder)
    spec = model.checked(json.loads(contents(s3_folder)["open_clip_config.json"])["model_cfg"])
    network = model.build(spec, seed=9)
    start.start_from(network, spec, s3_folder)
    assert embedding.digest_of(network.state_dict()) == run.weights


def test_another_activation_or_normalisation_is_refused(run: Run, tmp_path: Path):
    """The folder's config tells what its weights were trained with."""
    config = json.loads(contents(run.folder)["open_clip_config.json"])
    spec = model.checked({**config["model_cfg"], "quick_gelu": True})
    with pytest.raises(RecipeError, match="trained with GELU"):
        start.start_from(model.build(spec, seed=0), spec, run.folder)
    config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(RecipeError, match="normalised by mean"):
        start.start_from(model.build(spec, seed=0), spec, str(tmp_path))


@pytest.mark.parametrize(
    ("config", "match"),
    [("{", "not a model's config"), ('{"model_cfg": {}}', "a config without weights")],
)
def test_half_an_export_is_no_beginning(tmp_path: Path, config: str, match: str):
    """A config that is cut short, and one without weights, name the folder."""
    (tmp_path / "open_clip_config.json").write_text(config)
    spec = model.checked(TINY)
    with pytest.raises(CheckpointError, match=match) as raised:
        start.start_from(model.build(spec, seed=0), spec, str(tmp_path))
    assert str(tmp_path) in raised.value.where


# --- what is refused --------------------------------------------------------------


def test_another_model_is_never_overwritten(run: Run, tmp_path: Path):
    """The same weights are written anew; other ones, or a README of somebody's, are refused."""
    folder, own = str(tmp_path / "folder"), tmp_path / "own"
    export(run.place, folder, Wishes())
    before = contents(folder)
    export(run.place, folder, Wishes(name="another name"))
    assert contents(folder).keys() == before.keys()
    assert contents(folder)["README.md"] != before["README.md"]
    before = contents(folder)
    with pytest.raises(TrainingError, match="not of this model"):
        export(saved(TINY, tmp_path / "run"), folder, Wishes())
    assert contents(folder) == before
    own.mkdir()
    (own / "README.md").write_text("mine")
    with pytest.raises(TrainingError, match=r"the folder has README.md"):
        export(run.place, str(own), Wishes())
    assert contents(str(own)) == {"README.md": b"mine"}


def test_a_killed_export_is_no_model_and_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Cut short at any file, open_clip refuses the folder; done again, it is whole."""
    publish, folder = storage.publish_bytes, str(tmp_path / "folder")
    for last in ("README.md", "open_clip_config.json"):

        def fail(url: str, data: bytes, last: str = last) -> Any:
            if url.endswith(last):
                raise KeyboardInterrupt
            return publish(url, data)

        monkeypatch.setattr(storage, "publish_bytes", fail)
        with pytest.raises(KeyboardInterrupt):
            export(run.place, folder, Wishes(data=(run.shards,)))
        with pytest.raises(FileNotFoundError):
            open_clip.create_model(f"local-dir:{folder}")
    monkeypatch.undo()
    export(run.place, folder, Wishes(data=(run.shards,)))
    assert contents(folder) == contents(run.folder)


def test_a_full_disk_is_named(run: Run, tmp_path: Path):
    """Where the weights do not fit, nothing is left, and the error says where."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(StorageError, match="cannot write") as raised:
            export(run.place, str(disk / "folder"), Wishes())
        assert raised.value.where == str(disk / "folder/open_clip_model.safetensors")
        assert contents(str(disk / "folder")) == {}


def damage(run: str) -> None:
    path = next(Path(run, "checkpoints").glob("*.pt"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_bad_runs_are_refused(tmp_path: Path):
    """No checkpoint, a damaged one, and one that does not fit its config leave no folder."""
    out = tmp_path / "folder"
    with pytest.raises(TrainingError, match="no checkpoint here"):
        export(str(tmp_path), str(out), Wishes())
    run = saved(TINY, tmp_path / "damaged")
    damage(run)
    with pytest.raises(CheckpointError, match="digest"):
        export(run, str(out), Wishes())
    run = saved(TINY, tmp_path / "unfit")
    place = checkpoint.latest(run)
    assert place
    other = {**TINY, "text_cfg": {**TINY["text_cfg"], "layers": 2}}
    note = msgspec.structs.replace(checkpoint.read_note(place), model=other)
    Path(place).write_bytes(msgspec.json.encode(note))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        export(run, str(out), Wishes())
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "no results of an evaluation"),
        ('{"metrics": {"acc1": 0.5}}', "no results of an evaluation"),
        (encoded(results_of("0" * 32)).decode(), "results of other weights"),
    ],
)
def test_bad_results_are_refused(run: Run, tmp_path: Path, text: str, match: str):
    """Results that are cut short, of another program, or of other weights: nothing is written."""
    (tmp_path / "results.json").write_text(text)
    out = tmp_path / "folder"
    with pytest.raises(TrainingError, match=match):
        export(run.place, str(out), Wishes(results=str(tmp_path / "results.json")))
    assert not out.exists()


def test_other_data_is_refused(run: Run, make_shards: MakeShards, tmp_path: Path):
    """Shards that were not trained on, and a folder without shards; nothing is written."""
    out = tmp_path / "folder"
    with pytest.raises(TrainingError, match="not trained on this data set"):
        export(run.place, str(out), Wishes(data=(make_shards(20),)))
    with pytest.raises(WitError, match="no data set of shards here"):
        export(run.place, str(out), Wishes(data=(str(tmp_path),)))
    with pytest.raises(StorageError, match="no such file"):
        export(run.place, str(out), Wishes(datasheet=str(tmp_path / "no.md")))
    assert not out.exists()


def test_the_command_prints_where_it_is(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """`wit export` takes relative places, prints the folder, and refuses what is no licence."""
    monkeypatch.chdir(Path(run.place).parent)
    command("run", out=str(tmp_path / "folder"), licence="CC-BY-4.0")
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "folder")
    assert said.err.split() == ["weights", run.weights]
    weights, listed = ((tmp_path / "folder" / name).stat().st_mode for name in (FILES[2], FILES[0]))
    assert weights == listed
    card = (tmp_path / "folder/README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "# tiny owl" in card
    with pytest.raises(TrainingError, match="no SPDX identifier"):
        command(run.place, out=str(tmp_path / "other"), licence="free for all\nx: y")
    command("run", out=str(tmp_path / "folder"), licence="Apache2")
    assert "did you mean apache-2.0?" in capsys.readouterr().err
