"""Random numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wit_train.seeds import Purpose, fraction, hash_of, hashed

Words = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)


@given(Words, st.integers(0, 100))
def test_python_and_numpy_draw_the_same(words: list[int], index: int):
    """A row has one hash, and one fraction, however it is computed."""
    row = hash_of(Purpose.AUGMENT, *words)
    assert row == int(hashed(Purpose.AUGMENT, *words)[0])
    bits = hashed(Purpose.AUGMENT, *words, np.arange(101))[index] >> np.uint64(11)
    assert fraction(row, index) == float(bits * 2.0**-53)
    assert 0 <= fraction(row, index) < 1
