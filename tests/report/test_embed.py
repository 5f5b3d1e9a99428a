"""The columns that the page carries: what is packed comes back."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.report.count import FIGURES, STATUSES
from wit_builder.report.embed import Embedded, alphabetical, embed
from wit_builder.text import normalise

SOURCES = ["wordnet", "title"]


def unpacked(embedded: Embedded) -> dict[str, list[Any]]:
    """Return the columns as the page's script reads them."""
    data, rows = zlib.decompress(base64.b64decode(embedded.packed)), embedded.header["rows"]
    columns, at = {}, 0
    kinds = [*embedded.header["counts"], ["status", "u1"], ["source", "u1"]]
    for name, kind in kinds:
        size = rows * int(kind[1])
        columns[name] = np.frombuffer(data[at : at + size], f"<{kind}").tolist()
        at += size
    columns["query"] = data[at:].decode().split("\n") if rows else []
    for name, words in (("status", "statuses"), ("source", "sources")):
        columns[name] = [embedded.header[words][place] for place in columns[name]]
    return columns


counts = st.one_of(st.integers(0, 9), st.integers(0, 2**32 + 9), st.integers(0, 2**53))
row = st.fixed_dictionaries(
    {"query": st.text().map(normalise).filter(bool)}
    | dict.fromkeys(FIGURES, counts)
    | {"status": st.sampled_from(STATUSES), "source": st.sampled_from(SOURCES)}
)


@given(st.lists(row, max_size=20))
def test_what_is_embedded_comes_back(rows):
    """Any queries and any counts up to 2**53, of any status and source, row for row."""
    names = ["query", *FIGURES, "status", "source"]
    text = dict.fromkeys(("query", "status", "source"), pa.string())
    table = pa.table({n: pa.array([r[n] for r in rows], text.get(n, pa.int64())) for n in names})
    told = unpacked(embed(table, list(STATUSES), SOURCES))
    assert {name: told[name] for name in names} == table.to_pydict()


@pytest.mark.parametrize(("most", "kind"), [(2**32 - 1, "u4"), (2**32, "f8")])
def test_a_column_is_as_narrow_as_it_can_be(most, kind):
    """Four bytes hold a count until one is too large; the others stay as they are."""
    table = pa.table({"query": ["a"], **{n: [1] for n in FIGURES}, "matched": [most]})
    table = table.append_column("status", [["full"]]).append_column("source", [["title"]])
    kinds = dict(embed(table, list(STATUSES), SOURCES).header["counts"])
    assert kinds == dict.fromkeys(FIGURES, "u4") | {"matched": kind}


def test_the_alphabet_takes_accents_with_their_letters():
    """An accent does not send a word behind z, and puts it after the bare word."""
    words = ["zebra", "éclair", "eclair", "edge", "10", "straße", "strasse", "ebb"]
    ordered = alphabetical(pa.table({"query": words}))["query"].to_pylist()
    assert ordered == ["10", "ebb", "eclair", "éclair", "edge", "strasse", "straße", "zebra"]
