"""Checkpoints whose states tell their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch

from wit_train.checkpoint import Checkpoints, Note

NOTE = Note(
    step=0,
    data="d1",
    bound={},
    model={"embed_dim": 16},
    precision="fp32",
    revision=1,
)


def at(step: int, **changes: Any) -> Note:
    return msgspec.structs.replace(NOTE, step=step, **changes)


def state_of(number: int, rows: int = 100) -> dict[str, Any]:
    """A state that tells its number."""
    return {
        "model": {"w": torch.full((rows, 50), float(number))},
        "optimiser": {
            "state": {0: {"step": torch.tensor(float(number)), "m": torch.ones(rows, 50)}},
            "param_groups": [{"lr": 0.1 * number, "betas": (0.9, 0.98), "params": [0]}],
        },
    }


def number_of(state: dict[str, Any]) -> int:
    """The number of a state, all of whose parts agree."""
    (number,) = state["model"]["w"].unique().tolist()
    assert state["optimiser"]["state"][0]["step"] == number
    assert state["optimiser"]["param_groups"][0]["lr"] == 0.1 * number
    return int(number)


def saved(folder: str, *steps: int, keep: int = 9) -> str:
    """A folder with checkpoints of those steps, each with the state of its number."""
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(at(step), state_of(step))
    return folder


def names_in(folder: str) -> list[str]:
    return sorted(place.name for place in Path(folder).iterdir())
