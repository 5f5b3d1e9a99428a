"""What the tokens of a caption cost in CPU time: ours beside open_clip's tokenizer, in one run.

    python benchmarks/stream_tokens.py [--data .data]

Captions are of two kinds, each once: English (the glosses of Princeton WordNet and the texts of
pictures and links on the data folder's real web pages that are ASCII) and multilingual (those that
are not ASCII, and the names of emoji in 14 languages). Both tokenizers get them in batches of 32,
in turns; a first pass checks that all ids are the same with every ``clean`` that open_clip has.
"New" is a tokenizer that has met no word yet, as at the start of a decode process; "known" is the
same one after a pass. Then what long captions cost, and what a fresh process needs to be ready.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import emoji
import numpy as np
from open_clip.tokenizer import SimpleTokenizer

from benchmarks.match import glosses, page_texts
from wit_train.tokens import Clean, Tokenizer

BATCH = 32
READY = """
import time
began = time.perf_counter()
import numpy
imported = time.perf_counter()
from wit_train.tokens import Tokenizer
Tokenizer()
print(imported - began, time.perf_counter() - imported)
"""


def captions(data: Path) -> dict[str, list[str]]:
    """Return the captions of each kind, shuffled."""
    texts = [*page_texts(data), *glosses(data / "wordnet")]
    for sign, names in emoji.EMOJI_DATA.items():
        texts += [f"{sign} {name}" for name in names.values() if isinstance(name, str)]
    texts = [text for text in dict.fromkeys(texts) if text]
    random.Random(0).shuffle(texts)
    kinds = {"English": True, "multilingual": False}
    return {kind: [t for t in texts if t.isascii() == ascii_] for kind, ascii_ in kinds.items()}


def all_ids(tokenize: Callable[[list[str]], Any], texts: list[str]) -> list[Any]:
    """Return the ids of all texts, batch by batch."""
    return [tokenize(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]


def check(texts: list[str]) -> None:
    """Stop if an id differs under any cleaning."""
    for clean in get_args(Clean):
        theirs, ours = SimpleTokenizer(clean=clean), Tokenizer(clean=clean)
        for their_ids, our_ids in zip(all_ids(theirs, texts), all_ids(ours, texts), strict=True):
            np.testing.assert_array_equal(our_ids, their_ids.numpy())


def compare(kind: str, texts: list[str], turns: int) -> None:
    """Print CPU microseconds a caption of both, new and known, and the ratios."""
    letters = sum(map(len, texts)) / len(texts)
    print(f"{kind}: {len(texts):,} captions of {letters:.0f} characters")
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(turns):
        for name, make in (("open_clip", SimpleTokenizer), ("wit", Tokenizer)):
            tokenize = make()
            for state in ("new", "known"):
                began = time.process_time()
                all_ids(tokenize, texts)
                took.setdefault((name, state), []).append(time.process_time() - began)
    for state in ("new", "known"):
        theirs, ours = (
            statistics.median(took[name, state]) / len(texts) * 1e6 for name in ("open_clip", "wit")
        )
        ratio = theirs / ours
        print(f"  {state:6} open_clip {theirs:7.1f} us, wit {ours:6.1f} us: {ratio:5.1f} x")


def time_long_captions() -> None:
    """Print what captions of 100 kB cost, of which only the first 75 ids are wanted."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    kinds = {
        "English words": "a word of a caption " * 5000,
        "French words": "un mot d'une légende " * 5000,
        "mojibake": "un mot d'une lÃ©gende " * 4500,
        "entities": "salt &amp; pepper " * 5500,
        "one word": "".join(random.Random(0).choices(letters, k=100_000)),
    }
    tokenize = Tokenizer()
    for kind, text in kinds.items():
        began = time.process_time()
        tokenize([text])
        print(f"  a caption of 100 kB, {kind:15} {(time.process_time() - began) * 1e3:8.1f} ms")


def time_start(turns: int) -> None:
    """Print what a fresh process needs until it can tokenize ASCII, beyond numpy."""
    seconds = []
    for _ in range(turns):
        done = subprocess.run(
            [sys.executable, "-c", READY], check=True, capture_output=True, text=True
        )
        seconds.append([float(word) for word in done.stdout.split()])
    numpy_s, ours_s = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(f"ready in a fresh process: {ours_s:.3f} s after numpy's {numpy_s:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--captions", type=int, default=20_000, help="of each kind, to be timed")
    options = parser.parse_args()
    kinds = captions(options.data)
    for texts in kinds.values():
        check(texts)
    total = sum(map(len, kinds.values()))
    print(f"{total:,} captions have open_clip's ids under {', '.join(get_args(Clean))}")
    for kind, texts in kinds.items():
        compare(kind, texts[: options.captions], options.turns)
    time_long_captions()
    time_start(options.turns)


if __name__ == "__main__":
    main()
