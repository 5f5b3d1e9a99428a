"""Learning for real: train on some styles of drawing, test on others; balanced beside unbalanced.

    python benchmarks/learning.py [--seeds 0 1 2] [--steps 320] [--cap 8] [--out FOLDER]

The pictures are those of ``learning_pictures.py``, out of packages; what is held out, and how that
is made sure of, ``learning_split.py`` tells. From the pool of what may be trained on, with its own
texts and in its own proportions, two data sets of equal size are made for each seed: *balanced*,
what ``cap`` pairs for each query come to (``wit balance``'s draw; the queries are WordNet's names
and the words that stand 100 times in the English Wikipedia), and *unbalanced*, as many pairs of the
pool, each as likely as any other. Each is written as shards, and ``wit train`` trains the demo's
model on it, with the demo's recipe; ``wit eval``'s functions measure every checkpoint.

A run that was interrupted goes on with the same ``--out``. Results are a function of data, seed and
machine (torch's threads), not of what else runs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import learning_split
from benchmarks.learning_pictures import pictures, root_of
from benchmarks.learning_split import Concept, Row, Split
from benchmarks.web_turns import versions
from wit_builder.demo import data
from wit_builder.queries import wordnet
from wit_builder.shards.layout import DATASET
from wit_builder.text import normalise_column
from wit_train.commands import need_torch
from wit_train.evaluate.item import Item, TestSet
from wit_train.evaluate.results import Result

KINDS = ("balanced", "unbalanced")
EVERY_STEPS = 40
HEAD = 6
"""Concepts with more pictures in the pool are its head: those drawn with skin tones or genders."""

MIN_WORD_COUNT = 100

RECIPE = """
name = "{kind} {seed}"
seed = {seed}
steps = {steps}
[data]
shards = "{shards}"
batch_size = 256
lanes = 16
[data.augment]
min_area = 0.7
gray = 0.3
jitter = 0.4
[model.config]
embed_dim = 256
[model.config.vision_cfg]
layers = [1, 1, 1, 1]
width = 16
image_size = 64
[model.config.text_cfg]
context_length = 16
vocab_size = 49408
width = 128
heads = 2
layers = 2
[optimiser]
learning_rate = 1e-3
warmup_steps = 20
[log]
every_steps = 10
checkpoint_every_steps = {every_steps}
keep_checkpoints = 1000
"""
"""``wit_builder/demo/train.toml``, but for steps and checkpoints."""


class Naming(NamedTuple):
    """Pictures to be named among some names, each by the place of its file."""

    name: str
    places: list[str]
    targets: list[int]
    classes: list[str]
    along_the_curve: bool = False


class Named(TestSet):
    """The pictures of a naming."""

    def __init__(self, naming: Naming) -> None:
        super().__init__(naming.name, naming.classes)
        self._naming = naming

    def items(self, rank: int = 0, world_size: int = 1) -> Iterator[Item]:
        """Yield every picture of a rank."""
        pictures = zip(self._naming.places, self._naming.targets, strict=True)
        for i, (place, target) in enumerate(pictures):
            if i % world_size == rank:
                yield Item(i, place, Path(place).read_bytes, target)

    def pictures(self, indices: Collection[int]) -> dict[int, bytes]:
        """Return some."""
        return {i: Path(self._naming.places[i]).read_bytes() for i in indices}


class Measured(msgspec.Struct, frozen=True):
    """A share, and what guessing gives, over so many pictures."""

    value: float
    chance: float
    pictures: int


Scores = dict[str, Measured]
Curve = dict[int, Scores]


# --- what is asked ---------------------------------------------------------


def query_list(folder: Path) -> pa.Array:
    """Return the queries: WordNet's names, then Wikipedia's frequent words; normalised, once."""
    words = pq.read_table(folder / "enwiki-words.parquet")
    frequent = words.filter(pc.greater_equal(words["count"], MIN_WORD_COUNT))["gram"].to_pylist()
    listed = [*wordnet.names(str(folder / "wordnet"), "all"), *frequent]
    normalised = normalise_column(pa.array(listed, pa.string()))
    return pa.array([q for q in dict.fromkeys(normalised.to_pylist()) if q], pa.string())


def concepts(folder: Path) -> list[Concept]:
    """Return the demo's concepts by their roots."""
    chosen = data.concepts(str(folder))
    return [Concept(root_of(c.code.replace("-FE0F", "")), c.name) for c in chosen]


class Files:
    """Test pictures as files, which is how ``wit eval`` takes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, row: Row) -> str:
        """Return the file of a picture, written if it is not there."""
        file = self._folder / row["style"] / f"{row['name']}.jpg"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(row["jpeg"])
        return str(file)


def namings(split: Split, rows: Iterable[Row], files: Files) -> Iterator[Naming]:
    """Yield all tests of naming."""
    trained, new = ([c.name for c in part] for part in (split.trained, split.held_out))
    name_of = {c.root: c.name for c in (*split.trained, *split.held_out)}
    held_out = {c.root for c in split.held_out}
    count = Counter(split.pool["root"].to_pylist())
    index = learning_split.Index(split.pool["text"].to_pylist())
    known = {c.root for c in split.held_out if index.knows(c.name)}

    def naming(title: str, asked: list[Row], classes: list[str]) -> Naming:
        number = {name: i for i, name in enumerate(classes)}
        targets = [number[name_of[row["root"]]] for row in asked]
        return Naming(title, [files.place(row) for row in asked], targets, classes)

    new_styles = learning_split.HELD_OUT_STYLES
    for style in new_styles:
        mine = [r for r in split.test if r["style"] == style and r["root"] not in held_out]
        head = [r for r in mine if count[r["root"]] > HEAD]
        tail = [r for r in mine if count[r["root"]] <= HEAD]
        yield naming(style, mine, trained)._replace(along_the_curve=True)
        yield naming(f"{style}, head", head, trained)
        yield naming(f"{style}, tail", tail, trained)
    yield _as_they_come(split, rows, files)
    others = sorted({row["style"] for row in split.test} - set(new_styles))
    for where, styles in {"trained styles": others, **{s: [s] for s in new_styles}}.items():
        mine = [r for r in split.test if r["style"] in styles and r["root"] in held_out]
        title = f"new concepts, {where}"
        yield naming(title, mine, new)._replace(along_the_curve=True)
        yield naming(f"{title}, words known", [r for r in mine if r["root"] in known], new)
        yield naming(f"{title}, words new", [r for r in mine if r["root"] not in known], new)
        yield naming(f"{title}, among all names", mine, trained + new)


def _as_they_come(split: Split, rows: Iterable[Row], files: Files) -> Naming:
    """Return the naming of all pictures of the first held-out style, tones and genders told apart.

    They come as often as in the pool: two in three are people and hands.
    """
    trained = {c.root for c in split.trained}
    style = learning_split.HELD_OUT_STYLES[0]
    asked = [row for row in rows if row["style"] == style and row["root"] in trained]
    classes = list(dict.fromkeys(row["text"] for row in asked))
    number = {c: i for i, c in enumerate(classes)}
    targets = [number[row["text"]] for row in asked]
    return Naming(f"{style}, all variants", [files.place(row) for row in asked], targets, classes)


# --- training and measuring ------------------------------------------------


class Run(NamedTuple):
    """One of the six trainings."""

    kind: str
    seed: int
    folder: Path

    def train(self, pairs: pa.Table, queries: pa.Array, steps: int) -> None:
        """Write the shards, and train on them by the command line."""
        shards = self.folder / "shards"
        if not (shards / DATASET).exists():
            learning_split.write(str(shards), pairs, queries, self.seed)
        recipe = self.folder / "train.toml"
        every = {"every_steps": EVERY_STEPS, "steps": steps, "shards": shards}
        recipe.write_text(RECIPE.format(kind=self.kind, seed=self.seed, **every))
        out = ["--out", str(self.folder / "model")]
        command = [sys.executable, "-m", "wit_builder", "train", str(recipe), *out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def measured(self, asked: Sequence[Naming], captioned: dict[str, str]) -> Curve:
        """Return the scores of all checkpoints, by step: the last one's of every test."""
        done = self.folder / "curve.json"
        if not done.exists():
            checkpoints = sorted((self.folder / "model" / "checkpoints").glob("step-*.json"))
            curve = {
                int(place.stem.removeprefix("step-")): _scores(
                    str(place), asked, captioned, is_last=place == checkpoints[-1]
                )
                for place in checkpoints
            }
            done.write_bytes(msgspec.json.encode(curve))
        return msgspec.json.decode(done.read_bytes(), type=Curve)


def _scores(
    place: str, asked: Sequence[Naming], captioned: dict[str, str], *, is_last: bool
) -> Scores:
    from wit_train import trained  # noqa: PLC0415 - it imports torch, in this process only
    from wit_train.evaluate.retrieval import retrieval, sides  # noqa: PLC0415 - beside it
    from wit_train.evaluate.sets import opened  # noqa: PLC0415 - beside it
    from wit_train.evaluate.zero_shot import zero_shot  # noqa: PLC0415 - beside it

    judged = trained.load(place)
    found: Scores = {}
    for test in asked:
        if is_last or test.along_the_curve:
            result = zero_shot(judged, Named(test), ["{}"], cached=False).result
            found |= _measured(test.name, result)
    for name, shards in captioned.items() if is_last else ():
        pairs = opened(shards, captions=True)
        found |= _measured(name, retrieval(sides(judged, pairs), pairs))
    return found


def _measured(name: str, result: Result) -> Scores:
    """Return the scores of a test whose chance is known; all of these are."""
    return {
        f"{name} {score}": Measured(one.value, one.chance, result.pictures)
        for score, one in result.scores.items()
        if one.chance is not None
    }


# --- printing --------------------------------------------------------------


def print_scores(curves: dict[tuple[str, int], Curve], seeds: Sequence[int]) -> None:
    """Print the last checkpoints' scores, as means over the seeds and one by one."""
    last = {key: curve[max(curve)] for key, curve in curves.items()}
    print("| test | pictures | chance | balanced | unbalanced | balanced, by seed | unbalanced |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for test, first in last[KINDS[0], seeds[0]].items():
        means, singles = [], []
        for kind in KINDS:
            values = [100 * last[kind, seed][test].value for seed in seeds]
            means.append(f"{statistics.mean(values):.1f} %")
            singles.append(", ".join(f"{value:.1f}" for value in values))
        row = [test, f"{first.pictures:,}", f"{first.chance:.2%}", *means, *singles]
        print("| " + " | ".join(row) + " |")


def print_curve(curves: dict[tuple[str, int], Curve], seeds: Sequence[int]) -> None:
    """Print top-1 of the tests along the curve, means over the seeds."""
    steps = sorted(curves[KINDS[0], seeds[0]])
    print("| step | " + " | ".join(map(str, steps)) + " |")
    print("| --- |" + " --- |" * len(steps))
    for test in curves[KINDS[0], seeds[0]][steps[0]]:
        if not test.endswith("top1"):
            continue
        for kind in KINDS:
            values = (
                statistics.mean(100 * curves[kind, seed][step][test].value for seed in seeds)
                for step in steps
            )
            print(f"| {test}, {kind} | " + " | ".join(f"{value:.1f}" for value in values) + " |")


def print_pool(split: Split, sets: dict[str, pa.Table]) -> None:
    """Print what the pool and the data sets of one seed have in them."""
    head = {r for r, n in Counter(split.pool["root"].to_pylist()).items() if r and n > HEAD}
    tail = {c.root for c in split.trained} - head
    for name, pairs in {"pool": split.pool, **sets}.items():
        roots = Counter(pairs["root"].to_pylist())
        styles = Counter(pairs["style"].to_pylist()).most_common()
        of_tail = statistics.mean(roots[root] for root in tail)
        print(
            f"{name}: {len(pairs):,} pairs;",
            f"{sum(roots[r] for r in head):,} of {len(head)} head emoji,",
            f"{of_tail:.2f} each of {len(tail):,} tail concepts,",
            f"{sum(not roots[root] for root in tail)} of them without;",
            ", ".join(f"{style} {count:,}" for style, count in styles),
        )


def run(options: argparse.Namespace, out: Path) -> None:
    """Train and measure all, and print the tables."""
    rows = pictures(options.data).to_pylist()
    queries = query_list(options.data)
    split = learning_split.split(rows, concepts(options.data), queries)
    left = learning_split.leaks(split.pool.to_pylist(), split.held_out, split.test, split.captioned)
    assert not left, "the pool shows what is held out"
    asked = list(namings(split, rows, Files(out / "test")))
    captioned = {style: str(out / "captioned" / style) for style in learning_split.CAPTIONED}
    for style, place in captioned.items():
        of_style = [row for row in split.captioned if row["style"] == style]
        table = learning_split.with_uids(of_style)
        learning_split.write(place, table, queries, 0)
    curves: dict[tuple[str, int], Curve] = {}
    for seed in options.seeds:
        chosen = learning_split.balanced(split.pool, queries, options.cap, seed)
        other = learning_split.unbalanced(split.pool, len(chosen), seed)
        sets = dict(zip(KINDS, (chosen, other), strict=True))
        if seed == options.seeds[0]:
            print_pool(split, sets)
        for kind, pairs in sets.items():
            one = Run(kind, seed, out / f"{kind}-{seed}")
            one.train(pairs, queries, options.steps)
            curves[kind, seed] = one.measured(asked, captioned)
            reached = curves[kind, seed][max(curves[kind, seed])]["fluent top1"].value
            print(f"{kind} {seed}: {len(pairs):,} pairs, {reached:.1%}", flush=True)
    print_scores(curves, options.seeds)
    print_curve(curves, options.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--cap", type=int, default=8)
    parser.add_argument("--out", type=Path, help="keep what is made, to go on from")
    options = parser.parse_args()
    need_torch("this benchmark")
    print(versions("torch", "open_clip_torch", "numpy", "opencv-python-headless"))
    with tempfile.TemporaryDirectory() as scratch:
        run(options, options.out or Path(scratch))


if __name__ == "__main__":
    main()
