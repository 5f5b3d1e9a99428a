"""The journal of a run, and what a terminal shows of it."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from wit_train import metrics
from wit_train.metrics import Bar, Journal, Row, Shown, TimeLeft

OLD = (
    b'{"step":2,"loss":1.5,"logit_scale":14.3,"learning_rate":1e-3,"pairs_per_s":10.0,'
    b'"data_wait":0.1,"substituted":0,"sample_ids":"ab"}\n'
)


def row(step: int, **figures) -> Row:
    known = {
        "loss": 2.0,
        "logit_scale": 14.29,
        "learning_rate": 1e-4,
        "pairs_per_s": 100.0,
        "data_wait": 0.02,
        "substituted": 0,
        "sample_ids": "0123456789abcdef",
    }
    return Row(step=step, **{**known, **figures})


def test_what_was_not_measured_is_null_in_the_journal():
    """Every line has every key, so that a table can be made of them."""
    line = msgspec.json.decode(msgspec.json.encode(row(1, grad_norm=0.5)))
    assert (line["grad_norm"], line["mfu"], line["held_out"]) == (0.5, None, None)
    assert list(line) == list(Row.__struct_fields__)


def test_a_norm_that_is_not_finite_can_be_read_back(tmp_path: Path):
    """JSON has no infinity: such a norm, as of a step that fp16 skips, reads as None."""
    place = str(tmp_path / "metrics.jsonl")
    Journal(place, 0).add(row(1, grad_norm=float("inf")))
    assert metrics.read(place) == [row(1)]


def test_rows_of_an_older_journal_are_read_and_kept(tmp_path: Path):
    """A run that began before there were gradient norms goes on in the same journal."""
    place = tmp_path / "metrics.jsonl"
    place.write_bytes(OLD)
    Journal(str(place), 2).add(row(3, held_out=1.0))
    old, new = metrics.read(str(place))
    assert (old.step, old.grad_norm, old.held_out) == (2, None, None)
    assert new == row(3, held_out=1.0)


@given(
    steps=st.lists(st.integers(1, 50), unique=True).map(sorted),
    start=st.integers(0, 60),
    cut=st.integers(0, 100),
)
def test_a_continued_journal_holds_each_step_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], start: int, cut: int
):
    """Rows beyond the checkpoint are dropped, and so is a last line that was cut short."""
    place = tmp_path_factory.mktemp("journal") / "metrics.jsonl"
    lines = [msgspec.json.encode(row(step)) + b"\n" for step in steps]
    place.write_bytes(b"".join(lines) + msgspec.json.encode(row(1))[:cut])
    journal = Journal(str(place), start)
    journal.add(row(start + 1))
    kept = [step for step in steps if step <= start]
    assert [r.step for r in metrics.read(str(place))] == [*kept, start + 1]


def test_a_remote_journal_appears_when_it_is_published():
    """A bucket has no files that grow: rows arrive with the checkpoint."""
    place = "memory://journal/metrics.jsonl"
    journal = Journal(place, 0)
    journal.add(row(1))
    assert metrics.read(place) == []
    journal.publish()
    assert metrics.read(place) == [row(1)]
    assert Journal(place, 0) is not None
    assert metrics.read(place) == []


def test_the_time_left_forgets_how_slowly_the_run_began():
    """A minute of compilation is in the first estimate only."""
    now = [0.0]
    left = TimeLeft(1000, clock=lambda: now[0])
    found = list[float]()
    for step in range(10, 50, 10):
        now[0] += 60.0 + 10.0 if step == 10 else 10.0
        found.append(left.after(step))
    assert found[0] == 70 / 10 * 990
    assert found[1:] == [980, 970, 960]


def test_the_time_left_follows_a_change_of_speed():
    """Rows of long ago count no more; steps that an earlier start took never do."""
    now = [0.0]
    left = TimeLeft(10_000, done=5000, clock=lambda: now[0])
    for step in range(5001, 5101):
        now[0] += 1.0
        assert left.after(step) == 10_000 - step
    for step in range(5101, 5131):
        now[0] += 3.0
        seconds = left.after(step)
    assert seconds == 3 * (10_000 - 5130)


EVERYTHING = row(
    390_600,
    loss=10.3972,
    held_out=10.3972,
    logit_scale=100.0,
    grad_norm=123.4,
    pairs_per_s=123_456,
    mfu=0.4249,
    data_wait=1.0,
)


def test_a_line_says_all_that_was_measured_in_a_line():
    """Nothing more than that; some 100 characters in a long run on GPUs, 20 more if held out."""
    stream = io.StringIO()
    shown = Shown(390_625, stream=stream)
    shown.show(EVERYTHING, 36_000 * 2 + 62)
    shown.show(row(390_610), 62)
    full, bare = stream.getvalue().splitlines()
    assert full == (
        "step 390,600/390,625  loss 10.3972  held-out 10.3972  20:01:02 left  123,456 pairs/s  "
        "MFU 42%  wait 100%  scale 100  grad 123"
    )
    assert bare == (
        "step 390,610/390,625  loss 2.0000  1:02 left  100 pairs/s  wait 2%  scale 14.3"
    )
    assert len(full) <= 125


def test_rows_are_shown_as_json_for_machines():
    """The same object as in the journal."""
    stream = io.StringIO()
    Shown(10, as_json=True, stream=stream).show(EVERYTHING, 1.0)
    assert msgspec.json.decode(stream.getvalue(), type=Row) == EVERYTHING


def test_a_bar_fits_a_terminal_of_100_columns_but_for_its_last_figures():
    """The step, the loss and the time left are never cut."""
    stream = io.StringIO()
    with Bar(390_625, Console(file=stream, width=100, force_terminal=True)) as bar:
        bar.show(EVERYTHING, 62)
    last = stream.getvalue().replace("\x1b[0m", "")
    assert "390600/390625 loss 10.3972  held-out 10.3972  1:02 left" in last
    assert "train" in last
