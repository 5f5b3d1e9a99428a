"""The clock and the turns of the training benchmarks measure what they say."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest

from benchmarks import train_meter, train_turns
from benchmarks.train_meter import Portion, Ready, Setting
from benchmarks.train_profile import kind_of
from benchmarks.train_turns import Contestant, OutOfMemory, Runs

SETTING = Setting("m", batch=4, warm_steps=2, steps=3)


def _python(folder: Path, says: str) -> str:
    """Return a program that stands for a contestant's Python."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    return str(program)


def _portion(seconds: float) -> Portion:
    return Portion(3, 12, seconds, seconds, seconds / 10, 7)


def test_a_portion_of_steps_is_taken_for_every_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The steps of the warm-up come before it says that it is ready, and are not counted."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    taken = list(train_meter.metered(itertools.count(), SETTING, lambda: Ready({}, "CPU")))
    first, *portions = map(json.loads, capsys.readouterr().out.splitlines())
    assert taken == list(range(2 + 2 * 3))
    assert Ready(**first).device == "CPU"
    assert [Portion(**portion).images for portion in portions] == [12, 12]


def test_both_contestants_have_the_same_input():
    """Texts begin with the start token, and have one end with nothing behind it."""
    texts = train_meter.tokens(SETTING)
    assert (texts == train_meter.tokens(SETTING)).all()
    assert (texts[:, 0] == 49406).all()
    assert ((texts == 49407).sum(1) == 1).all()
    assert all(not row[list(row).index(49407) + 1 :].any() for row in texts)


def test_a_setting_survives_the_way_to_its_process():
    """What is written is what is read."""
    assert Setting.read(SETTING.written()) == SETTING


def test_a_contestant_takes_turns(tmp_path: Path):
    """What its libraries print is no answer of its own."""
    ready, portion = json.dumps(Ready({}, "CPU")._asdict()), json.dumps(_portion(2.0)._asdict())
    says = f"echo hello; echo '{ready}'; while read line; do echo noise; echo '{portion}'; done"
    one = Contestant("it", _python(tmp_path, says), "train_peer", SETTING)
    assert train_turns.together([one], 2) == {"it": Runs(Ready({}, "CPU", []), [_portion(2.0)] * 2)}
    assert train_turns.apart([one], 2)["it"].per_second == 6


@pytest.mark.parametrize(
    ("said", "kind"),
    [("torch.OutOfMemoryError: CUDA out of memory.", OutOfMemory), ("KeyError", SystemExit)],
)
def test_a_contestant_that_fails_says_why(tmp_path: Path, said: str, kind: type[BaseException]):
    """Too little memory is told from other failures: the setting is then tried in another way."""
    one = Contestant("it", _python(tmp_path, f"echo '{said}' >&2; exit 1"), "train_peer", SETTING)
    with pytest.raises(kind, match="it"):
        train_turns.together([one], 1)


def test_trainings_of_other_losses_are_not_compared():
    """A contestant that says no losses, its data being its own, is not judged by them."""
    runs = {"ours": Runs(Ready({}, "CPU", [4.0, 3.0]), []), "a": Runs(Ready({}, "CPU", []), [])}
    train_turns.refuse_other_work({**runs, "b": Runs(Ready({}, "CPU", [4.001, 3.0]), [])})
    with pytest.raises(SystemExit, match="not the same work"):
        train_turns.refuse_other_work({**runs, "b": Runs(Ready({}, "CPU", [4.0, 3.5]), [])})


def test_trainers_are_compared_turn_by_turn():
    """The ratio is the median of the turns' ratios."""
    ready = Ready({}, "CPU")
    runs = {
        "ours": Runs(ready, [_portion(s) for s in (1, 1, 10)]),
        "it": Runs(ready, [_portion(s) for s in (2, 3, 30)]),
    }
    assert train_turns.ratio(runs, "it") == pytest.approx(3)
    assert runs["it"].step_s == 1
    assert runs["it"].waiting == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "matrix products"),
        ("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NTN", "matrix products"),
        ("void flash_fwd_kernel<Flash_fwd_kernel_traits<64>>", "attention"),
        ("triton_per_fused_native_layer_norm_12", "fused by the compiler"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdam>", "optimiser"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("void at::native::elementwise_kernel", "other"),
    ],
)
def test_a_kernel_is_known_by_its_name(kernel: str, kind: str):
    """A profile sums up kernels of a kind."""
    assert kind_of(kernel) == kind
