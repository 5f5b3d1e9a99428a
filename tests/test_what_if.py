"""What other caps would keep, before anything is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small_web import SmallWeb
from tests.worlds import Loop, World
from wit_builder import cli
from wit_builder.sections import BalanceSection
from wit_builder.what_if import Outlook, lines

WORLD = World(
    ["q0", "q1"],
    {bytes([n]) * 16: [0] if n < 6 else [0, 1] for n in range(8)},
    {bytes([n]) * 16: "picture" for n in range(8)},
)


def test_a_cap_counts_what_its_draw_holds(tmp_path: Path) -> None:
    """Pairs are those that any query draws, by the definition of the draw, pair by pair."""
    loop = Loop(tmp_path, WORLD, BalanceSection(), list(WORLD.pairs))
    base = loop.drawing
    for cap in (1, 2, 3, 8, 100):
        drawing = base.with_cap(cap)
        living = World(WORLD.queries, WORLD.pairs, {uid: uid.hex() for uid in WORLD.pairs})
        assert drawing.count("count", drawing.settle("draw")) == len(living.kept([cap, cap]))


def test_a_dry_run_prints_a_line_per_cap_and_leaves_nothing(
    small_web: SmallWeb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several caps, in order; the run's folder is as a build up to matching leaves it."""
    root = str(tmp_path / "run")
    command = ["balance", *small_web.command(root)[1:], "--dry-run", "--workers", "1", "--json"]
    assert cli.status([*command, "--set", "balance.cap_per_query=3,1"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [o["cap_per_query"] for o in told] == [1, 3]
    assert 0 < told[0]["pairs"] < told[1]["pairs"]
    assert told[0]["at_cap"] >= told[1]["at_cap"] > 0
    assert told[0]["tail_of_matches"] < told[1]["tail_of_matches"] < 1
    left = (p.name for p in (tmp_path / "run").iterdir() if not p.name.startswith("."))
    assert sorted(left) == [
        "g0", "generations.json", "queries", "recipe.toml", "sites", "units",
    ]  # fmt: skip
    assert not (tmp_path / "run" / "g0" / "selected").exists()


@pytest.mark.parametrize("cap", ["0", "-3", "many", "", "5,"])
def test_a_cap_that_is_none_is_refused(
    cap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_web: SmallWeb
) -> None:
    """Zero, negative or no number: exit 1, and one line says what a cap is."""
    command = small_web.command(str(tmp_path / "run"))
    settings = ["--set", f"balance.cap_per_query={cap}"]
    assert cli.status(["balance", *command[1:], "--dry-run", *settings]) == 1
    assert "a cap is a whole number of pairs" in capsys.readouterr().err


@pytest.mark.parametrize("cap", ["0", "-3"])
def test_a_build_refuses_a_cap_below_one(
    cap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_web: SmallWeb
) -> None:
    """The recipe's key is named."""
    command = small_web.command(str(tmp_path / "run"))
    assert cli.status([*command, "--set", f"balance.cap_per_query={cap}"]) == 1
    assert "balance.cap_per_query" in capsys.readouterr().err


def test_lines_stand_in_columns() -> None:
    """Every line is as wide as the head's, figures right."""
    one = Outlook(
        cap_per_query=20_000, pairs=1234567, draws=2_000_000, queries=9, at_cap=4,
        tail_of_matches=0.0612, tail_of_draws=0.5,
    )  # fmt: skip
    head, row = lines([one])
    assert len(head) == len(row)
    for figure in ("20,000", "1,234,567", "4 of 9 queries", "6.1%"):
        assert figure in row
