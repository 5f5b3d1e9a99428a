from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder.crawl.json_strings import strings

TEXTS = st.lists(
    st.sampled_from(["a" * 62, "b" * 129, '"', "\\", "\n", "é", "😀", "c", "\\" * 64]), max_size=6
).map("".join)


@settings(max_examples=200)
@given(st.lists(TEXTS, max_size=6), st.sampled_from([0, 1]))
def test_a_column_says_what_each_string_does(texts: list[str], escaped: int) -> None:
    """Wherever escapes stand, at the very end of the data too."""
    raw = [json.dumps(text, ensure_ascii=bool(escaped)).encode()[1:-1] for text in texts]
    ends = np.cumsum([0, *map(len, raw)])
    spans = np.column_stack([ends[:-1], ends[1:]])
    assert strings(np.frombuffer(b"".join(raw), np.uint8), spans).to_pylist() == texts
