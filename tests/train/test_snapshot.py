"""The copy of a state, and the file of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_train import snapshot

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any tensor that a state dict may hold: scalars, empty ones, views, other layouts."""
    shape: list[int] = draw(st.lists(st.integers(0, 4), max_size=4))
    bits = draw(st.integers(0, 2**31))
    tensor = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(bits))
    tensor = tensor.to(draw(st.sampled_from(DTYPES)))
    layout = draw(st.sampled_from(["plain", "transposed", "channels last", "part of another"]))
    if layout == "channels last" and len(shape) == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "transposed" and shape:
        return tensor.transpose(0, -1)
    return tensor[1:] if layout == "part of another" and shape else tensor


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False)
STATES = st.dictionaries(
    st.sampled_from(["model", "optimiser", "scaler", "ema"]),
    st.dictionaries(
        st.text(max_size=3) | st.integers(0, 9),
        st.recursive(
            tensors() | PLAIN,
            lambda part: (
                st.lists(part, max_size=3)
                | st.dictionaries(st.text(max_size=3), part, max_size=3)
                | st.tuples(part, part)
            ),
            max_leaves=6,
        ),
        max_size=4,
    ),
)


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        laid_out = torch.empty_like(one).stride() == other.stride()  # without gaps
        return one.dtype == other.dtype and laid_out and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=60)
@given(STATES, STATES)
def test_any_state_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, Any], then: dict[str, Any]
):
    """Types, shapes, strides, values and nesting, out of buffers that held another state before."""
    place = str(tmp_path_factory.mktemp("s") / "x.pt")
    buffers = snapshot.Buffers()
    for state in (first, then, then):
        file = snapshot.publish(place, buffers.copy_of(state))
        assert same(state, snapshot.read(place, file))


def test_tensors_that_are_one_stay_one():
    """A weight under two names is copied once, and is one tensor in the copy."""
    w = torch.rand(3, 3)
    copied = snapshot.Buffers().copy_of({"model": {"a": w, "b": w.detach(), "c": w.clone()}})
    a, b, c = (copied["model"][name].data_ptr() for name in "abc")
    assert a == b != c


def test_what_torch_adds_to_a_state_dict_is_kept():
    """Versions of modules, an attribute of the dict, come back: loading old ones depends on it."""
    state: Any = torch.nn.BatchNorm2d(3).state_dict()
    assert snapshot.Buffers().copy_of({"model": state})["model"]._metadata == state._metadata
