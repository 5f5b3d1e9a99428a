"""Weights that a run begins with, from whatever open_clip can read."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import pytest
import torch
from open_clip import pretrained
from open_clip.factory import load_checkpoint
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file

from tests.train.tiny import TINY
from wit_builder import storage
from wit_builder.errors import CheckpointError, RecipeError, StorageError, WitError
from wit_train import checkpoint, model, start
from wit_train.config import LossSection, ModelSection
from wit_train.start import start_from

QUICK = {**TINY, "quick_gelu": True}
LARGER = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 48}}
SHORTER = {**TINY, "text_cfg": {**TINY["text_cfg"], "context_length": 6}}

Network: TypeAlias = CLIP | CustomTextCLIP
Write = Callable[[dict[str, torch.Tensor], str], None]


def fresh(config: dict[str, Any], seed: int = 1) -> Network:
    return model.build(model.checked(config), seed)


def same(one: Network, other: Network) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.fixture(scope="module")
def source() -> Network:
    """Return a model with other weights than a fresh one."""
    network = fresh(TINY, seed=5)
    with torch.no_grad():
        network.logit_scale.fill_(3.0)
    return network


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any, str], str]:
    """Give a function that writes anything with torch.save, and returns the place."""

    def write(what: Any, name: str = "weights.pt") -> str:
        torch.save(what, tmp_path / name)
        return str(tmp_path / name)

    return write


def trainers(state: dict[str, torch.Tensor], place: str) -> None:
    under_ddp = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": under_ddp, "optimizer": {}}, place)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("plain.bin", torch.save),
        ("epoch_3.pt", trainers),
        ("legacy.pth", lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False)),
        ("half.pt", lambda s, p: torch.save({k: v.half().float() for k, v in s.items()}, p)),
        ("model.safetensors", save_file),
    ],
)
def test_weights_are_those_of_a_file(tmp_path: Path, source: Network, name: str, write: Write):
    """Each kind of file gives what open_clip's own loading gives, logit scale included."""
    state = {key: value.contiguous() for key, value in source.state_dict().items()}
    write(state, str(tmp_path / name))
    ours, theirs = fresh(TINY), fresh(TINY)
    start_from(ours, model.checked(TINY), str(tmp_path / name))
    load_checkpoint(theirs, str(tmp_path / name))
    assert same(ours, theirs)
    assert float(ours.logit_scale.detach()) == 3.0


@pytest.mark.parametrize("config", [LARGER, SHORTER, {**TINY, "custom_text": True}])
def test_other_sizes_are_loaded_as_open_clip_does(
    save: Callable[..., str], source: Network, config: dict[str, Any]
):
    """Positions are interpolated for larger pictures or fewer tokens; the older names are read."""
    place = save(source.state_dict())
    ours, theirs = fresh(config), fresh(config)
    start_from(ours, model.checked(config), place)
    load_checkpoint(theirs, place)
    assert same(ours, theirs)
    assert not same(ours, fresh(config))


def test_half_precision_weights_are_read(save: Callable[..., str], source: Network):
    """As OpenAI's are; positions are interpolated in float32."""
    place = save({key: value.half() for key, value in source.state_dict().items()})
    ours = fresh(LARGER)
    start_from(ours, model.checked(LARGER), place)
    assert ours.visual.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(ours.text_projection, source.text_projection, atol=1e-3, rtol=1e-3)


def a_run(folder: str, network: Network, config: dict[str, Any], step: int) -> None:
    note = checkpoint.Note(step=step, data="", bound={}, model=config, precision="fp32")
    saving = checkpoint.Checkpoints(storage.join(folder, "checkpoints"), keep=3)
    saving.save(note, {"model": network.state_dict(), "optimiser": {"state": {}}})
    saving.finish()


def test_weights_are_those_of_a_run(tmp_path: Path, source: Network):
    """A run's folder means its last checkpoint; a JSON means that one."""
    a_run(str(tmp_path), fresh(TINY, 8), TINY, 4)
    a_run(str(tmp_path), source, TINY, 9)
    for place, expected in (("", source), ("checkpoints/step-00000004.json", fresh(TINY, 8))):
        ours = fresh(TINY)
        start_from(ours, model.checked(TINY), str(tmp_path / place))
        assert same(ours, expected)


@pytest.mark.s3
def test_weights_come_from_a_bucket(s3_folder: str, source: Network):
    """A run or a file there."""
    a_run(s3_folder, source, TINY, 9)
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    storage.publish_bytes(f"{s3_folder}/weights.pt", buffer.getvalue())
    for place in (s3_folder, f"{s3_folder}/weights.pt"):
        ours = fresh(TINY)
        start_from(ours, model.checked(TINY), place)
        assert same(ours, source)


def test_a_bias_is_the_recipes_where_the_weights_have_none(
    save: Callable[..., str], source: Network
):
    """A CLIP can go on as a SigLIP; a SigLIP's bias is taken over; no CLIP takes one."""
    section = ModelSection(config=TINY)
    spec = model.spec_of(section, LossSection(kind="siglip", initial_logit_bias=-10))
    ours = model.build(spec, 1)
    start_from(ours, spec, save(source.state_dict()))
    assert float(ours.logit_bias.detach()) == -10
    biased = save({**source.state_dict(), "logit_bias": torch.tensor([-7.0])})
    start_from(ours, spec, biased)
    assert float(ours.logit_bias.detach()) == -7
    with pytest.raises(CheckpointError, match="has logit_bias, which the model has not"):
        start_from(fresh(TINY), model.checked(TINY), biased)


def test_weights_of_another_model_are_refused(save: Callable[..., str], source: Network):
    """A few of the names that are too many, too few or of other shapes are told."""
    place = save(source.state_dict())
    deeper = {**TINY, "text_cfg": {**TINY["text_cfg"], "layers": 2}}
    with pytest.raises(CheckpointError, match=r"lacks transformer\.resblocks\.1\..* and \d+ more"):
        start_from(fresh(deeper), model.checked(deeper), place)
    extra = save({**source.state_dict(), "extra": ONE}, "extra.pt")
    with pytest.raises(CheckpointError, match="has extra, which the model has not"):
        start_from(fresh(TINY), model.checked(TINY), extra)
    wider = {**TINY, "embed_dim": 24}
    with pytest.raises(CheckpointError, match=r"other shapes of text_projection, visual\.proj"):
        start_from(fresh(wider), model.checked(wider), place)
    narrow = {**TINY, "text_cfg": {**TINY["text_cfg"], "width": 8}}
    with pytest.raises(CheckpointError, match="other shapes of positional_embedding"):
        start_from(fresh(narrow), model.checked(narrow), place)


ONE = torch.ones(1)


class Harm:
    """Would run code when a pickle with it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("harm",))


@pytest.mark.parametrize(
    ("name", "data", "names"),
    [
        ("empty.pt", b"", "not a checkpoint of weights"),
        ("page.pt", b"<html>404</html>", "not a pickle of tensors"),
        ("cut_short.pt", None, "not a checkpoint of weights"),
        ("cut_short.safetensors", b"\x10\0\0\0\0\0\0\0{}", "not a checkpoint of weights"),
        ("code.pt", {"a": Harm()}, "would run code: .*print"),  # Ray has one of its own
        ("pickled_code.bin", pickle.dumps({"a": Harm()}), "not a pickle of tensors"),
        ("list.pt", [ONE], "not a checkpoint of weights"),
        ("nothing.pt", {}, "not a checkpoint of weights"),
        ("ours.pt", {"model": {"a": ONE}, "optimiser": {}}, "model, optimiser: no tensors"),
    ],
)
def test_what_holds_no_weights_is_refused(
    tmp_path: Path,
    source: Network,
    name: str,
    data: Any,
    names: str,
    capsys: pytest.CaptureFixture[str],
):
    """In one line that names the file; nothing in it is run."""
    place = tmp_path / name
    if data is None:
        torch.save(source.state_dict(), place)
        data = place.read_bytes()[:5000]
    if isinstance(data, bytes):
        place.write_bytes(data)
    else:
        torch.save(data, place)
    with pytest.raises(CheckpointError, match=names) as caught:
        start_from(fresh(TINY), model.checked(TINY), str(place))
    assert "\n" not in str(caught.value)
    assert str(place) in str(caught.value)
    assert not capsys.readouterr().out


def test_what_is_not_there_is_refused(tmp_path: Path):
    """A file, and a folder without a run."""
    with pytest.raises(StorageError, match=r"none\.pt"):
        start_from(fresh(TINY), model.checked(TINY), str(tmp_path / "none.pt"))
    with pytest.raises(CheckpointError, match=r"no checkpoint here.*ends in \.pt"):
        start_from(fresh(TINY), model.checked(TINY), str(tmp_path / "none"))


class Scripted(torch.nn.Module):
    """A CLIP's weights with the three numbers that OpenAI put beside them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)
        for name, weight in network.named_parameters(recurse=False):
            self.register_parameter(name, weight)
        for name, size in (("input_resolution", 32), ("context_length", 8), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def archive(tmp_path: Path, source: Network) -> str:
    """Return a TorchScript archive like OpenAI's."""
    place = str(tmp_path / "openai.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(Scripted(source), ONE), place)
    return place


def test_openais_archives_are_read_and_no_others(
    archive: str, source: Network, monkeypatch: pytest.MonkeyPatch
):
    """TorchScript is a program, so only the archives whose digests open_clip knows are opened."""
    with pytest.raises(CheckpointError, match="a program, and not one of OpenAI's"):
        start_from(fresh(QUICK), model.checked(QUICK), archive)
    assert len(start.openai_digests()) == 9
    digest = hashlib.sha256(Path(archive).read_bytes()).hexdigest()
    monkeypatch.setattr(start, "openai_digests", lambda: {digest})
    ours = fresh(QUICK)
    start_from(ours, model.checked(QUICK), archive)
    assert same(ours, source)
    with pytest.raises(RecipeError, match=r"was trained with QuickGELU.*computes GELU"):
        start_from(fresh(TINY), model.checked(TINY), archive)


def test_openais_state_dict_is_known_by_its_entries(save: Callable[..., str], source: Network):
    """So it is refused for plain GELU, and loads for QuickGELU without those entries."""
    place = save({**source.state_dict(), "input_resolution": torch.tensor(32)})
    with pytest.raises(RecipeError, match=r"set quick_gelu = true in the model's config"):
        start_from(fresh(TINY), model.checked(TINY), place)
    ours = fresh(QUICK)
    start_from(ours, model.checked(QUICK), place)
    assert same(ours, source)


def test_a_run_with_another_activation_is_refused(tmp_path: Path, source: Network):
    """Both ways: the shapes are the same, and nothing else would tell."""
    for theirs, ours, fix in ((QUICK, TINY, "true"), (TINY, QUICK, "false")):
        folder = str(tmp_path / fix)
        a_run(folder, source, theirs, 9)
        with pytest.raises(RecipeError, match=f"set quick_gelu = {fix}"):
            start_from(fresh(ours), model.checked(ours), folder)


@pytest.mark.parametrize(
    ("name", "tag", "names"),
    [
        ("ViT-B-32", "openai", r'QuickGELU.*set model.name = "ViT-B-32-quickgelu"'),
        ("RN50x16", "openai", r'set model.name = "RN50x16-quickgelu"'),
        ("ViT-B-32", "laion400m_e32", r'set model.name = "ViT-B-32-quickgelu"'),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "has no weights.*there are: openai"),
        ("MobileCLIP-B", "datacompdr", "normalised by mean"),
        ("", "openai", "the recipe names none"),
    ],
)
def test_published_weights_that_do_not_suit_are_refused(name: str, tag: str, names: str):
    """Before anything is downloaded, with what would suit."""
    section = ModelSection(name=name) if name else ModelSection(config=TINY)
    spec = model.spec_of(section)
    with pytest.raises(RecipeError, match=names):
        start_from(fresh(TINY), spec, tag)


def test_published_weights_are_downloaded_by_open_clip(
    save: Callable[..., str], source: Network, monkeypatch: pytest.MonkeyPatch
):
    """And read as any file; without a network the error says what to do (the network is faked)."""
    spec = model.checked(QUICK)._replace(name="ViT-B-32-quickgelu")
    place, ours = save(source.state_dict()), fresh(QUICK)
    monkeypatch.setattr(pretrained, "download_pretrained", lambda _: place)
    start_from(ours, spec, "openai")
    assert same(ours, source)

    def unreachable(_: object) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(pretrained, "download_pretrained", unreachable)
    with pytest.raises(CheckpointError, match=r"cannot download.*not known.*name the file"):
        start_from(ours, spec, "openai")


def test_every_tag_of_the_papers_models_is_told_apart():
    """For each, either the weights suit the -quickgelu model, or an error says which they suit."""
    for name in ("RN50", "RN101", "RN50x4", "ViT-B-32", "ViT-B-16", "ViT-L-14"):
        quick = {*open_clip.list_pretrained_tags_by_model(f"{name}-quickgelu")}
        for tag in open_clip.list_pretrained_tags_by_model(name):
            known = pretrained.get_pretrained_cfg(name, tag)
            assert (tag in quick) == bool(known.get("quick_gelu"))


def test_errors_hide_credentials():
    """A signed URL of a checkpoint is told without its signature."""
    with pytest.raises(WitError) as caught:
        start_from(fresh(TINY), model.checked(TINY), "https://127.0.0.1:9/w.pt?sig=SECRET")
    assert "SECRET" not in str(caught.value)
