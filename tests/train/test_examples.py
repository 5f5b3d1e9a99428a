"""The examples of ``docs/streaming.md`` run, on few shards and a model of few weights."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/streaming.md"

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 77, "width": 16, "heads": 2, "layers": 1},
}

Run = Callable[..., str]


def examples() -> dict[str, str]:
    """Return the page's Python by the heading it stands under."""
    sections = re.split(r"^#+ (.*)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {
        heading: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for heading, text in zip(sections[::2], sections[1::2], strict=True)
    }
    assert all(len(codes) < 2 for codes in found.values())
    return {heading: codes[0] for heading, codes in found.items() if codes}


EXAMPLES = examples()


@pytest.fixture
def script(tmp_path: Path, shards: str) -> Callable[..., Path]:
    """Give a function that writes an example as a script: small numbers, a model called tiny."""

    def write(heading: str, changes: dict[str, str], before: str = "", after: str = "") -> Path:
        code = EXAMPLES[heading]
        for old, new in {'"s3://bucket/shards"': repr(shards), **changes}.items():
            assert old in code, old
            code = code.replace(old, new)
        assert "s3://" not in code
        place = tmp_path / "train.py"
        place.write_text(f"{before}\n{code}\n{after}\n")
        return place

    return write


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs a script in a folder of its own and returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def start(script: Path) -> str:
        capsys.readouterr()
        runpy.run_path(str(script))
        return capsys.readouterr().out

    return start


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """Return code that makes open_clip know a model called tiny."""
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    return 'import open_clip\nopen_clip.add_model_config("tiny.json")'


def numbers(output: str) -> list[list[int]]:
    """Return the lists that were printed; processes may print into each other's lines."""
    return [json.loads(found) for found in re.findall(r"\[[\d, -]*\]", output)]


SEEN = "print(batch.sample_ids.tolist())"


def test_the_page_has_an_example_for_everything_that_is_tested():
    """No example is without a test here."""
    assert list(EXAMPLES) == [
        "Streaming shards into a training loop",
        "Plain torch",
        "open_clip's model, with torchrun",
        "Lightning",
        "Evaluation: a stream that ends",
        "Mixtures",
    ]


def test_the_first_example_yields_what_it_says(script, run):
    """Shapes and steps are those of the comments."""
    shapes = "print([batch.step, *batch.images.shape, *batch.tokens.shape])"
    heading = "Streaming shards into a training loop"
    assert numbers(run(script(heading, {"1024": "8"}, after=shapes))) == [
        [10, 8, 224, 224, 3, 8, 77]
    ]


@pytest.mark.slow
def test_plain_torch_goes_on_where_it_stopped(script, run):
    """Two runs of two steps see the samples of one run of four."""
    changes = {"1024": "8", "    images, tokens = on": f"    {SEEN}\n    images, tokens = on"}
    two = script("Plain torch", {**changes, "STEPS, CHECKPOINT = 1000": "STEPS, CHECKPOINT = 2"})
    stopped = numbers(run(two))
    two.write_text(two.read_text().replace("CHECKPOINT = 2", "CHECKPOINT = 4"))
    resumed = numbers(run(two))
    (two.parent / "checkpoint.pt").unlink()
    assert len(stopped) == len(resumed) == 2
    assert stopped + resumed == numbers(run(two))


OPEN_CLIP = {
    '"ViT-B-32"': '"tiny"',
    "1024": "8",
    "STEPS = 1000": "STEPS = 2",
    "    optimiser.step()\n": f"    optimiser.step()\n    {SEEN}\n",
}


def test_open_clip_s_model_trains(script, run, tiny):
    """The example trains in one process, and sees whole batches."""
    place = script("open_clip's model, with torchrun", OPEN_CLIP, before=tiny)
    assert [len(ids) for ids in numbers(run(place))] == [8, 8]


@pytest.mark.slow
def test_open_clip_s_model_trains_with_torchrun(script, tiny):
    """Two ranks share each batch, and see other samples."""
    place = script("open_clip's model, with torchrun", OPEN_CLIP, before=tiny)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(place)], cwd=place.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = numbers(done.stdout)
    assert [len(ids) for ids in seen] == [4] * 4
    assert len({sample for ids in seen for sample in ids}) == 16


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning gives advice by warning, and so does torch to it
def test_lightning_goes_on_where_it_stopped(script, run, tiny):
    """Two runs of two steps see the samples of one run of four."""
    changes = {
        '"ViT-B-32"': '"tiny"',
        "1024": "8",
        "images = torch.from": f"{SEEN}\n        images = torch.from",
    }
    whole = script("Lightning", {**changes, "max_steps=1000": "max_steps=4"}, before=tiny)
    expected = numbers(run(whole))
    stopped = numbers(
        run(script("Lightning", {**changes, "max_steps=1000": "max_steps=2"}, before=tiny))
    )
    more = {
        "max_steps=1000": "max_steps=4",
        "fit(Clip())\n": "fit(Clip(), ckpt_path='last.ckpt')\n",
    }
    resumed = numbers(run(script("Lightning", {**changes, **more}, before=tiny)))
    assert len(stopped) == len(resumed) == 2
    assert stopped + resumed == expected


def test_the_finite_stream_gives_every_sample_once(script, run):
    """The example's own assertion holds, with a last batch that is not full."""
    run(script("Evaluation: a stream that ends", {"256": "32"}))


def test_the_mixture_has_its_shares(script, run, make_shards):
    """The example's own assertion holds for two data sets of other sizes."""
    others = make_shards(30)
    run(script("Mixtures", {'"s3://bucket/others"': repr(others), "1024": "64", "768": "48"}))
