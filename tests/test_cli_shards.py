"""The commands about shards: exit status, what they print, and how they end when interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.foreign_tar import shard
from wit_builder import cli
from wit_builder.shards import index as indexing
from wit_builder.shards import sample
from wit_builder.shards.verify import verify

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def cc(tmp_path: Path) -> Path:
    """A download of three shards."""
    for n in range(3):
        shard(tmp_path / "cc" / f"{n:05d}.tar", range(n * 10, n * 10 + 5))
    return tmp_path / "cc"


def wit(*arguments: str | Path) -> int:
    return cli.status([str(argument) for argument in arguments])


def test_index_then_verify(cc: Path, tmp_path: Path, capsys: Captured) -> None:
    """Both say what they counted, and exit with 0."""
    out = tmp_path / "out"
    assert wit("index", f"{cc}/{{00000..00002}}.tar", "--out", out, "--workers", "1") == 0
    assert "indexed: shards 3, samples 15" in capsys.readouterr().out
    assert wit("verify", out, "--decode", "--resume", tmp_path / "notes", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["samples"], said["faults"]) == (15, [])


def test_index_tells_of_what_it_left_out(cc: Path, tmp_path: Path, capsys: Captured) -> None:
    """Missing shards and faults are named, and counted in JSON."""
    data = (cc / "00001.tar").read_bytes()
    (cc / "00001.tar").write_bytes(data[:9000])
    out = str(tmp_path / "out")
    asked = ["index", f"{cc}/{{00000..00009}}.tar", "--out", out, "--missing", "skip"]
    assert wit(*asked, "--workers", "1") == 0
    said = capsys.readouterr()
    assert "00001.tar at byte" in said.err
    assert "because they are missing: 7" in said.err
    assert wit(*asked, "--workers", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["counts"]["faults"], len(told["missing"])) == (1, 7)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["index", "--out", "x"], 1, "no shard is named"),
        (["index", "gone.tar", "--out", "x"], 1, "missing: 1 of 1"),
        (["index", "gone.tar"], 2, "--out"),
        (["index", "gone.tar", "--out", "x", "--missing", "maybe"], 2, "maybe"),
        (["verify", "gone"], 1, "no data set of shards"),
        (["pack", "gone", "--reshard", "--out", "x"], 1, "no data set of shards"),
        (["pack", "gone", "--reshard", "--out", "x", "--set", "image.size=3"], 1, "nothing else"),
    ],
)
def test_wrong_use_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    """With what to do about it."""
    monkeypatch.chdir(tmp_path)
    assert wit(*arguments) == status
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("wit: ")
    assert words in last
    assert "->" in last


def test_a_data_set_is_packed_anew(tmp_path: Path) -> None:
    """In shards of another size, with the same pairs."""
    sample.main([str(tmp_path / "old")])
    settings = ["--set", "pack.samples_per_shard=12", "--workers", "1"]
    assert wit("pack", tmp_path / "old", "--reshard", "--out", tmp_path / "new", *settings) == 0
    report = verify(str(tmp_path / "new"))
    assert (report.ok, report.shards, report.samples) == (True, 2, 24)


@pytest.mark.parametrize("command", ["index", "verify"])
def test_an_interrupted_command_goes_on_next_time(cc: Path, tmp_path: Path, command: str) -> None:
    """Ctrl-C: exit 130; the same command again finishes, and leaves nothing open."""
    assert wit("index", str(cc), "--out", cc, "--workers", "1") == 0
    out, notes = tmp_path / "out", tmp_path / "notes"
    every = f"{cc}/{{00000..00002}}.tar"  # a folder's listing would pass over a pipe
    asked = {
        "index": ["index", every, "--out", str(out), "--workers", "1", "--json"],
        "verify": ["verify", str(cc), "--resume", str(notes), "--workers", "1", "--json"],
    }[command]
    # the second shard's first byte does not come: a pipe stands in for a slow disk
    slow = cc / "00001.tar"
    slow.rename(tmp_path / "away")
    os.mkfifo(slow)
    process = subprocess.Popen(
        [sys.executable, "-m", "wit_builder", *asked],
        stderr=subprocess.PIPE,
        text=True,
    )
    done = (out / ".index" / "surveys") if command == "index" else notes
    while not list(done.rglob("00000-*.json")):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.strip().splitlines()[-1].startswith("wit: interrupted -> start the same command")
    slow.unlink()
    (tmp_path / "away").rename(slow)
    assert wit(*asked) == 0
    assert not list(notes.glob("*"))
    assert ((out if command == "index" else cc) / indexing.WORK).exists()
