"""The trainer's README."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from wit_train import stream

README = Path(__file__).parents[2] / "train/README.md"


def test_the_stream_example_runs(shards: str):
    """The example feeds a loop, on any data set."""
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    code = example.replace("s3://bucket/shards", shards).replace("1024", "64")
    before, loop = code.split("for batch in stream:")
    scope: dict[str, stream.Stream] = {}
    exec(before, scope)
    (batch,) = islice(scope["stream"], 1)
    assert batch.images.shape == (64, 224, 224, 3)
    assert batch.tokens.shape == (64, 77)
    assert "batch.images" in loop
