"""What is held out is not trained on; both data sets have one size; a seed gives one result."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from benchmarks import learning
from benchmarks.learning_pictures import root_of
from benchmarks.learning_split import (
    HELD_OUT_STYLES,
    Concept,
    Index,
    balanced,
    leaks,
    split,
    unbalanced,
    write,
)
from wit_builder.shards.read import Dataset

# concepts of two words each, so that each word stands in other names, too
WORDS = "oak elm ash yew fir pine palm lime pear plum fig date rose lily iris fern moss reed"
NAMES = [f"{colour} {word}" for word in WORDS.split() for colour in ("red", "blue")]
CONCEPTS = [Concept(f"{0x1F400 + i:04X}", name) for i, name in enumerate(NAMES)]
QUERIES = pa.array([*WORDS.split(), "red", "blue", "sign", "tone"])


@pytest.fixture(scope="module")
def rows():
    """Return made-up pictures: each concept in each style, with a skin tone, and as stamps."""
    rng = np.random.default_rng(0)

    def row(style, name, text, root=""):
        pixels = np.repeat(np.repeat(rng.integers(0, 256, (2, 2, 3), np.uint8), 4, 0), 4, 1)
        pixels[0, 0] = (0, 0, 255)
        jpeg = cv2.imencode(".png", pixels)[1].tobytes()
        phash = f"{rng.integers(0, 2**63):016x}"
        return {
            "style": style,
            "name": name,
            "text": text,
            "root": root,
            "jpeg": jpeg,
            "phash": phash,
        }

    made = []
    for code, name in CONCEPTS:
        for style in ("openmoji", "google", "twitter", *HELD_OUT_STYLES):
            text = f"{name} sign" if style == "twitter" else name
            made.append(row(style, code, text, code))
            made.append(row(style, f"{code}-1F3FB", f"{name} light tone", code))
        colour, word = name.split()
        made.append(row("stamps", f"{name}.png", f"Two {word}s, all {colour}."))
        made.append(row("clipart", f"{name}.svg", f"{colour}{word}, {word}"))
        made.append(row("clipart", f"{name} 2.svg", f"{word} of another colour"))
    # the picture of a test, under another name
    tested = next(r for r in made if r["style"] == "fluent" and "-" not in r["name"])
    return [*made, row("clipart", "copy.svg", "a pine") | {"phash": tested["phash"]}]


@pytest.fixture(scope="module")
def made(rows):
    """Return the split of those pictures."""
    return split(rows, CONCEPTS, QUERIES)


@pytest.mark.parametrize(
    ("code", "root"),
    [
        ("1F44B-1F3FD", "1F44B"),
        ("1F3C3-1F3FB-200D-2640-FE0F", "1F3C3"),
        ("1F3C3-200D-2642-FE0F-200D-27A1-FE0F", "1F3C3"),
        ("1F469-1F3FF-200D-2695-FE0F", "1F9D1-200D-2695"),
        ("1F468-200D-2695", "1F9D1-200D-2695"),
        ("1F9D1-200D-1F9B0", "1F9D1-200D-1F9B0"),
        ("2764-FE0F", "2764"),
        ("1F3FB", "1F3FB"),
        ("2640-FE0F", "2640-FE0F"),
    ],
)
def test_a_root_is_what_an_emoji_shows(code, root):
    """Tone, gender, direction and variation go, hair stays; a tone by itself is a root."""
    assert root_of(code) == root


@pytest.mark.parametrize(
    "text",
    ["Light bulb", "bulbs that give light", "two lightbulbs", "LIGHT-BULB, lamp", "bulb (light)"],
)
def test_a_name_is_found_in_any_order_and_number(text):
    """Singular or plural, in one word or in two."""
    index = Index(["a lamp", text, "a bulb"])
    assert index.containing("light bulb") == {1}
    assert index.containing("light bulbs") == {1}


@pytest.mark.parametrize(
    ("name", "text"),
    [("tomato", "Tomatoes!"), ("berry", "berries"), ("knife", "knives"), ("mouse", "three mice")],
)
def test_irregular_plurals_are_found(name, text):
    """Those of emoji's names."""
    assert Index([text]).containing(name) == {0}


def test_nothing_held_out_is_trained_on(made):
    """No style, no concept under any name, no picture of a test, no text of a held-out stamp."""
    pool = made.pool.to_pylist()
    new = {c.name for c in made.held_out}
    assert len(made.held_out) == 4
    assert not {c.name for c in made.trained} & new
    assert not {row["style"] for row in pool} & set(HELD_OUT_STYLES)
    assert not {row["root"] for row in pool} & {c.root for c in made.held_out}
    assert not {row["phash"] for row in pool} & {r["phash"] for r in (*made.test, *made.captioned)}
    assert not {row["text"] for row in pool} & {row["text"] for row in made.captioned}
    for colour, word in (name.split() for name in new):
        assert not [r for r in pool if colour in r["text"].lower() and word in r["text"].lower()]


def test_what_does_not_leak_is_trained_on(rows, made):
    """All other pictures are in the pool: other concepts, and other things with one word alike."""
    words = {name for c in made.held_out for name in c.name.split()}
    pool = Counter(made.pool["style"].to_pylist())
    others = len(CONCEPTS) - len(made.held_out)
    assert pool["openmoji"] == pool["google"] == pool["twitter"] == 2 * others
    assert any(row["text"].split()[0] in words for row in made.pool.to_pylist())
    taken = {row["name"] for row in made.captioned}
    stamps = [r for r in rows if r["style"] == "stamps" and r["name"] not in taken]
    new = {f"{c.name}.png" for c in made.held_out}
    assert pool["stamps"] == len([r for r in stamps if r["name"] not in new])


def test_leaks_finds_what_is_put_back(rows, made):
    """The benchmark's own check is not blind, and the pool passes it."""
    held_out = (made.held_out, made.test, made.captioned)
    pool = made.pool.to_pylist()
    assert leaks(pool, *held_out) == set()
    kept = {(row["style"], row["name"]) for row in pool}
    gone = [row for row in rows if (row["style"], row["name"]) not in kept]
    assert leaks([*pool, *gone], *held_out) == set(range(len(pool), len(pool) + len(gone)))


def test_the_order_of_the_pictures_changes_nothing(rows, made):
    """A split is a function of what the pictures are."""
    other = split(random.Random(1).sample(rows, len(rows)), CONCEPTS, QUERIES)
    assert other.pool.equals(made.pool)
    assert other[1:] == made[1:]


@pytest.mark.parametrize("seed", [0, 1])
def test_both_data_sets_have_one_size(made, seed):
    """Balanced draws its cap of each query and no more; unbalanced as many pairs, none twice."""
    chosen = balanced(made.pool, QUERIES, 3, seed)
    other = unbalanced(made.pool, len(chosen), seed)
    assert len(chosen) == len(other) < len(made.pool)
    draws = Counter(q for ids in chosen["drawn_by"].to_pylist() for q in ids)
    matches = Counter(q for ids in made.pool["query_ids"].to_pylist() for q in ids)
    assert draws == {q: min(n, 3) for q, n in matches.items()}
    for pairs in (chosen, other):
        assert len(set(pairs["uid"].to_pylist())) == len(pairs)
        assert set(pairs["uid"].to_pylist()) <= set(made.pool["uid"].to_pylist())


def test_a_seed_gives_the_same_shards(made, tmp_path):
    """The same bytes from the same seed, another choice and order from another."""
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        write(str(folder), unbalanced(made.pool, 20, seed), QUERIES, seed)
    tars = [(folder / "000000.tar").read_bytes() for folder in folders]
    assert tars[0] == tars[1] != tars[2]
    samples = list(Dataset.open(str(folders[0])).samples(0))
    texts = Counter(unbalanced(made.pool, 20, 0)["text"].to_pylist())
    assert Counter(sample.members["txt"].decode() for sample in samples) == texts


def test_pictures_are_named_among_their_own_names(rows, made, tmp_path):
    """Every class of a test is its picture's; head and tail are all, and nothing is asked twice."""
    asked = {t.name: t for t in learning.namings(made, rows, learning.Files(tmp_path))}
    name_of = dict(CONCEPTS)
    for test in asked.values():
        assert len(test.places) == len(set(test.places)) == len(test.targets)
        if "variants" not in test.name:
            roots = [Path(place).stem for place in test.places]
            assert [test.classes[t] for t in test.targets] == [name_of[r] for r in roots]
    fluent = asked["fluent"]
    assert len(fluent.places) == len(fluent.classes) == len(made.trained)
    assert len(asked["fluent, head"].places) + len(asked["fluent, tail"].places) == len(
        made.trained
    )
    assert len(asked["new concepts, lines"].classes) == len(made.held_out)
    assert len(asked["fluent, all variants"].places) == 2 * len(made.trained)
    items = list(learning.Named(fluent).items())
    assert [item.target for item in items] == fluent.targets
    bodies = {row["jpeg"] for row in rows if row["style"] == "fluent"}
    assert {item.read() for item in items} <= bodies
    assert learning.Named(fluent).pictures([2]) == {2: items[2].read()}
