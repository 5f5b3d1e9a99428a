"""Scripts without spaces are refused by name."""

from __future__ import annotations

import pyarrow as pa

from wit_builder.queries.scripts import Refusals, Refused

HAN, HIRAGANA, THAI = "\u732b", "\u732b \u3044\u306c", "\u0e41\u0e21\u0e27"
CYRILLIC = "\u0441\u043e\u0431\u0430\u043a\u0430"


def test_refusals():
    """Rows in such scripts are taken out, and counted with the first of each script."""
    refusals = Refusals()
    given = pa.table({"query": [HAN, "dog", CYRILLIC]})
    first = refusals.sift(given, "query")
    assert first["query"].to_pylist() == ["dog", CYRILLIC]
    second = refusals.sift(pa.table({"query": [HIRAGANA, "caf\u00e9", THAI]}), "query")
    assert second["query"].to_pylist() == ["caf\u00e9"]
    assert refusals.rows == 3
    assert refusals.by_script() == [
        Refused("Han", 2, HAN),
        Refused("Hiragana", 1, HIRAGANA),
        Refused("Thai", 1, THAI),
    ]


def test_nothing_to_refuse():
    """A table in ASCII, or an empty one, is as it was."""
    refusals = Refusals()
    for texts in ([], ["dog"]):
        table = pa.table({"query": pa.array(texts, pa.string())})
        assert refusals.sift(table, "query").equals(table)
    assert refusals.by_script() == []
