from __future__ import annotations

import functools
import json

import cv2
import numpy as np
import pytest

from wit_builder.demo import data
from wit_builder.errors import DemoError


@pytest.fixture(scope="module")
def chosen():
    return data.choose(60)


def _pixels(encoded):
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)


def _differing(a, b):
    return (cv2.absdiff(a, b).max(axis=2) > 40).mean()


def test_the_choice_is_the_same_every_time_and_a_shorter_one_is_its_beginning(chosen):
    """The first concepts are the first ones however many are asked for."""
    assert data.choose(20) == chosen[:20]
    assert len({c.name for c in chosen}) == len(chosen)


def test_flags_skin_tones_and_gendered_twins_are_left_out():
    """Concepts are things that can be told apart by their line drawings."""
    assert data._left_out(["1F1EB", "1F1F7"])  # flag of France
    assert data._left_out(["1F44B", "1F3FB"])  # waving hand, light skin tone
    assert data._left_out(["1F468", "200D", "1F3A8"])  # man artist
    assert data._left_out(["1F3C3", "200D", "2640", "FE0F"])  # woman running
    assert not data._left_out(["1F9D1", "200D", "1F3A8"])  # artist
    assert not data._left_out(["1F468"])  # man


def test_the_choice_is_kept_in_the_data_folder(tmp_path, monkeypatch, chosen):
    """A second start reads what the first one chose."""
    monkeypatch.setattr(data, "choose", functools.partial(data.choose, 5))
    first = data.concepts(str(tmp_path))
    monkeypatch.setattr(data, "choose", None)
    assert data.concepts(str(tmp_path)) == first == chosen[:5]


def test_an_unusable_data_folder_is_a_demo_error(tmp_path, monkeypatch, chosen):
    """The choice cannot be kept where a file is in the way."""
    monkeypatch.setattr(data, "choose", lambda: chosen)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DemoError, match="choose another data folder"):
        data.concepts(str(tmp_path / "file" / "below"))


def test_a_picture_is_a_function_of_seed_concept_and_variant(chosen):
    """The same look gives the same bytes, and variants differ."""
    for concept in chosen[:10]:
        one, again, other = (
            data.colour(concept, data.look(3, concept, variant)) for variant in (0, 0, 1)
        )
        assert one == again
        assert one != other


def test_a_picture_is_what_its_look_says(chosen):
    """Encoding and size are those of the look."""
    magic = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG", "webp": b"RIFF"}
    for concept in chosen:
        look = data.look(0, concept, 0)
        encoded = data.colour(concept, look)
        assert encoded.startswith(magic[look.kind])
        assert _pixels(encoded).shape == (look.height, look.width, 3)


def test_no_colour_picture_is_a_line_drawing(chosen):
    """What the web shows differs from the line groups alone, drawn in the same place."""
    for concept in chosen:
        line = data._line_parts(concept.code)
        for variant in range(2):
            look = data.look(1, concept, variant)
            alone = data.rasterise(data.placed_svg(line, look))
            assert _differing(_pixels(data.colour(concept, look)), alone) > 0.004, concept.name


def test_a_line_drawing_is_black_on_white(chosen):
    """The held-out style has no colour, a white ground and something black on it."""
    for concept in chosen:
        pixels = _pixels(data.line_drawing(concept, 64)).astype(int)
        assert pixels.shape == (64, 64, 3)
        assert (pixels.max(axis=2) - pixels.min(axis=2)).max() <= 2
        assert pixels.max() == 255
        assert pixels.min() < 64


def test_the_test_set_is_a_folder_per_class(tmp_path, chosen):
    """``classes.json`` names the classes by their folders, in order."""
    data.write_test_set(str(tmp_path), chosen[:3])
    names = json.loads((tmp_path / "classes.json").read_text())
    assert names == {f"{i:04d}": c.name for i, c in enumerate(chosen[:3])}
    for index, concept in enumerate(chosen[:3]):
        assert (tmp_path / f"{index:04d}" / "line.png").read_bytes() == data.line_drawing(concept)
