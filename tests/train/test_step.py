"""The parts of a step, against open_clip's own and against the paper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import config as inductor
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from tests.train.tiny import TINY, a_batch, recipe_of
from wit_builder.errors import RecipeError, TrainingError
from wit_train import config, loss, model, training
from wit_train.schedule import learning_rate
from wit_train.step import refuse_damage, train_step


def test_learning_rate_warms_up_and_falls_to_zero():
    """Linear to the peak, half a cosine to 0, a function of the step alone."""
    rates = [learning_rate(s, peak=1.0, warmup_steps=4, steps=14) for s in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.5)
    assert rates[14] == 0.0
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_gains_biases_and_the_logit_scale_do_not_decay():
    """Weight decay is for parameters of two dimensions and more."""
    network = model.build(model.checked(TINY), 0)
    decaying, others = training.optimiser_for(network, config.OptimiserSection()).param_groups
    names = {id(p): n for n, p in network.named_parameters()}
    assert decaying["weight_decay"] == 0.2
    assert others["weight_decay"] == 0.0
    kept = {names[id(p)] for p in others["params"]}
    assert {"logit_scale", "ln_final.weight", "ln_final.bias"} <= kept
    assert "token_embedding.weight" not in kept


def test_logit_scale_is_clipped_at_a_hundred():
    """The paper's bound holds after every step."""
    recipe = recipe_of({})
    made = training.begin(recipe, model.spec_of(recipe.model))
    with torch.no_grad():
        made.clip.logit_scale.fill_(math.log(200.0))
    taken = train_step(made, a_batch(), 1e-3)
    assert float(taken.logit_scale) == pytest.approx(100.0)


def test_a_rank_that_is_alone_compares_each_pair_once(monkeypatch: pytest.MonkeyPatch):
    """The loss is given the same tensors for its own rows and for all, which it knows to use."""
    given = []
    true = loss.contrastive

    def seen(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
        given.append(tensors)
        return true(*tensors, **options)

    monkeypatch.setattr(loss, "contrastive", seen)
    made = training.begin(recipe_of({}), model.spec_of(recipe_of({}).model))
    train_step(made, a_batch(), 1e-3)
    assert given[0][2] is given[0][0]
    assert given[0][3] is given[0][1]


def test_weights_that_are_not_finite_are_not_saved():
    """A gradient may be lost while the loss of its step is not."""
    made = training.begin(recipe_of({}), model.spec_of(recipe_of({}).model))
    refuse_damage(made, 3)
    with torch.no_grad():
        made.clip.visual.proj[0] = math.nan
    with pytest.raises(TrainingError, match=r"weights are nan after 3 steps.*not saved"):
        refuse_damage(made, 3)


def test_a_norm_that_nobody_wants_is_not_computed():
    """Without it and with it the weights are the same."""
    made = [training.begin(recipe_of({}), model.spec_of(recipe_of({}).model)) for _ in range(2)]
    norms = [train_step(m, a_batch(), 1e-3, measured=i == 0).grad_norm for i, m in enumerate(made)]
    assert [math.isnan(norm) for norm in norms] == [False, True]
    weights = zip(*(m.clip.parameters() for m in made), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in weights)


def test_gradients_are_clipped():
    """The norm told is the one before; with SGD's eye view, the weights move as by the rest."""
    moved = []
    for limit in (0.0, 0.01):
        recipe = recipe_of({"optimiser.clip_norm": limit})
        made = training.begin(recipe, model.spec_of(recipe.model))
        norm = float(train_step(made, a_batch(), 1e-3).grad_norm)
        gradients = [p.grad for p in made.clip.parameters() if p.grad is not None]
        moved.append((norm, float(torch.nn.utils.get_total_norm(gradients))))
    (plain, kept), (told, left) = moved
    assert plain == kept == told > 0.01
    assert left == pytest.approx(0.01, rel=1e-3)


def test_half_precision_with_a_scaler_learns():
    """Overflow at the first scale skips steps, not training; the scaler has a state to save."""
    recipe = recipe_of({"precision": "fp16"})
    made = training.begin(recipe, model.spec_of(recipe.model))
    losses = [float(train_step(made, a_batch(), 1e-2).loss) for _ in range(12)]
    assert losses[-1] < losses[0] / 2
    assert training.state_of(made)["scaler"]["scale"] > 0


def test_the_average_follows_the_weights():
    """A tenth of the way, from the first ones."""
    recipe = recipe_of({"optimiser.ema_decay": 0.9})
    made = training.begin(recipe, model.spec_of(recipe.model))
    first = made.clip.visual.proj.detach().clone()
    train_step(made, a_batch(), 1e-2)
    assert made.average
    expected = first.lerp(made.clip.visual.proj.detach(), 0.1)
    torch.testing.assert_close(made.average.get_parameter("visual.proj"), expected)


def test_common_statistics_need_gpus():
    """What would do nothing on a CPU is refused."""
    recipe = recipe_of({"step.sync_batch_norm": True})
    with pytest.raises(RecipeError, match="on GPUs only"):
        training.begin(recipe, model.spec_of(recipe.model))


def test_batch_statistics_by_parts_are_warned_of(capsys: pytest.CaptureFixture[str]):
    """Gradients of a ResNet by parts are not those of the whole batch, and the log says so."""
    config = {**TINY, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}}
    recipe = recipe_of({"model.config": config, "step.micro_batch": 4})
    training.begin(recipe, model.spec_of(recipe.model))
    assert "batch normalisation sees 4 rows" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_towers_compute_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And what the compiler made is kept in the run's folder, unless the user named another."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())
    # it would compile a dozen programs to see what the processor can do
    monkeypatch.setattr(inductor.cpp, "vec_isa_ok", False)
    steps = []
    for compiled in ("off", "on"):
        recipe = recipe_of({"step.compile": compiled})
        made = training.begin(recipe, model.spec_of(recipe.model), out=str(tmp_path / "run"))
        taken = [train_step(made, a_batch(step=step), 1e-3) for step in range(2)]
        steps.append([(float(t.loss), float(t.grad_norm)) for t in taken])
    assert steps[1] == [pytest.approx(step, rel=1e-4) for step in steps[0]]
    assert any((tmp_path / "run/compile-cache").rglob("*.cpp"))
