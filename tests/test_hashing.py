"""The column hash equals the xxhash package's."""

from __future__ import annotations

import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.hashing import hash_column, label_seed


@given(st.lists(st.binary(max_size=100), max_size=20), st.integers(0, 2**64 - 1))
def test_binary_columns_hash_as_xxhash_does(values: list[bytes], seed: int) -> None:
    """Any bytes, any seed: the same number as the reference library."""
    for kind in (pa.binary(), pa.large_binary()):
        got = hash_column(pa.array(values, kind), seed).tolist()
        assert got == [xxhash.xxh64_intdigest(v, seed) for v in values]


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=3, max_size=20))
def test_fixed_size_slices_hash_their_own_rows(values: list[bytes]) -> None:
    """A slice of a uid column hashes the rows it shows."""
    column = pa.array(values, pa.binary(16))
    assert hash_column(column[1:]).tolist() == [xxhash.xxh64_intdigest(v) for v in values[1:]]


def test_strings_and_slices() -> None:
    """A slice of a string column hashes the rows it shows."""
    column = pa.array(["a", "bé", "", "d"])
    assert hash_column(column[1:3]).tolist() == [
        xxhash.xxh64_intdigest(v.encode()) for v in ("bé", "")
    ]


def test_a_label_makes_a_seed_of_its_own() -> None:
    """Purposes do not share their random numbers."""
    assert label_seed(1, "pack") == xxhash.xxh64_intdigest(b"pack", 1)
    assert len({label_seed(s, label) for s in (0, 1) for label in ("pack", "dedup")}) == 4
