"""What may change between a run and its continuation."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from wit_builder.errors import CheckpointError, RecipeError
from wit_train import checkpoint
from wit_train.checkpoint import Note
from wit_train.config import TrainRecipe, bound_keys

NOTE = Note(
    step=0,
    data="d1",
    bound=bound_keys(TrainRecipe()),
    model={"embed_dim": 16},
    precision="fp32",
    revision=1,
)


def at(step: int, **changes: Any) -> Note:
    return msgspec.structs.replace(NOTE, step=step, **changes)


def bound(**changes: str) -> dict[str, str]:
    """The default recipe's keys, some with another value; ``__`` stands for a dot."""
    return NOTE.bound | {key.replace("__", "."): value for key, value in changes.items()}


def refused(expected: Note, allowed: tuple[str, ...] = (), note: Note = NOTE) -> list[str]:
    return checkpoint.refuse_other_run(note, expected, "there.json", allowed)


def test_the_same_run_goes_on():
    """Also on a later revision of its data."""
    assert refused(NOTE) == refused(at(7, revision=2)) == []


def test_another_run_is_refused_with_what_differs_and_what_it_does():
    """Keys with both values, those that change the order first, and the way to allow them."""
    other = at(0, data="d2", bound=bound(seed="1", optimiser__learning_rate="0.0003"))
    named = (
        r"other samples in the batches from here on: seed 0 -> 1, data d1 -> d2; "
        r"another training than before: optimiser\.learning_rate 0\.0005 -> 0\.0003 \[there\.json\]"
        r".*--allow-change optimiser\.learning_rate --allow-change seed --allow-change data"
    )
    with pytest.raises(CheckpointError, match=named):
        refused(other)
    with pytest.raises(CheckpointError, match=r"run: other samples [a-z ]+: seed 0 -> 1 \["):
        refused(other, ("data", "optimiser.learning_rate"))


def test_what_is_allowed_is_told():
    """A line a change; what was allowed and has not changed is no matter, free keys neither."""
    other = at(0, data="d2", bound=bound(optimiser__learning_rate="0.0003"), revision=0)
    allowed = ("data", "optimiser.learning_rate", "seed", "log.every_steps")
    assert refused(other, allowed) == [
        "optimiser.learning_rate: 0.0005 -> 0.0003 (maths)",
        "data: d1 -> d2 (order)",
    ]


@pytest.mark.parametrize("key", ["optimizer.learning_rate", "learning_rate", "optimiser"])
def test_a_key_that_does_not_exist_cannot_be_allowed(key: str):
    """The error names the one that was probably meant."""
    with pytest.raises(RecipeError, match=r"no key .*did you mean 'optimiser\.\w+'"):
        refused(NOTE, (key,))


def test_a_key_of_a_newer_version_with_its_default_is_no_change():
    """Whoever updates the package goes on; whoever sets the new key is asked."""
    old = at(0, bound={k: v for k, v in NOTE.bound.items() if k != "optimiser.ema_decay"})
    assert refused(NOTE, note=old) == []
    with pytest.raises(CheckpointError, match=r"optimiser\.ema_decay 0\.0 -> 0\.99"):
        refused(at(0, bound=bound(optimiser__ema_decay="0.99")), note=old)


def test_a_key_that_is_gone_is_a_change():
    """This version would not do what it says; it can be allowed. One that is free by now is not."""
    old = at(0, bound=bound(optimiser__lookahead="5", old__key="1", log__every_steps="3"))
    with pytest.raises(CheckpointError, match=r"old\.key 1 -> \(no such key\), optimiser\.look"):
        refused(NOTE, note=old)
    allowed = ("old.key", "optimiser.lookahead")
    assert len(refused(NOTE, allowed, old)) == 2


def test_of_two_configs_only_what_differs_is_shown():
    """A model is a long table, and its name may stand for another one than before."""
    vision = {"width": 768, "layers": 12}
    configs = ({"vision_cfg": vision, "bias": 1}, {"vision_cfg": vision | {"layers": 6}})
    old, new = (at(0, bound=bound(model__config=json.dumps(config))) for config in configs)
    shown = (
        r'model\.config {"vision_cfg":{"layers":12},"bias":1} -> '
        r'{"vision_cfg":{"layers":6},"bias":"\(no such key\)"} \['
    )
    with pytest.raises(CheckpointError, match=shown):
        refused(new, note=old)


def test_removed_samples_must_not_come_back():
    """An earlier revision of the data than the checkpoint's is refused, allowed or not."""
    with pytest.raises(CheckpointError, match=r"revision 0, .* revision 1.*is back"):
        refused(at(0, revision=0), ("data",))
