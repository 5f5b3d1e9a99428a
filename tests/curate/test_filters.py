"""Texts that are file names, and texts that say nothing of the picture."""

# ruff: noqa: RUF001 - quotation marks and letters of other scripts are meant as they are
from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.curate import filters, sayings
from wit_builder.tables import Reason
from wit_builder.text import normalise_column


def judged(texts: list[str]) -> list[str]:
    """Return "file_name", "boilerplate" or "" for every text."""
    column = pa.array(texts, pa.string())
    found = filters.say_nothing(column, normalise_column(column))
    return ["".join(r for r, mask in found.items() if mask[i]) for i in range(len(texts))]


@pytest.mark.parametrize(
    "text",
    [
        "IMG_1234.jpg",
        "IMG_1234",
        "photo.png",
        "DSC00012",
        "P1010023",
        "_MG_1234",
        "20190101_123456",
        "2019-01-01",
        "image-3",
        "hero-banner_final2.webp",
        "HERO.JPEG",
        "golden-retriever.jpg",
        "foto.de.meu.cão.JPG",
        "WhatsApp Image 2020-01-01 at 10.00.00.jpeg",
        "Screenshot 2021-03-04 at 10.11.12",
        "Bildschirmfoto 2021-03-04 um 10.11.12",
        "Screen Shot 2020-01-01 at 1.png",
        "FB_IMG_1500000",
        "12345678_10155_123_n",
        "photo-e1597853-300x200",
        "d41d8cd98f00b204e9800998ecf8427e",
        "550e8400-e29b-41d4-a716-446655440000",
        "Untitled-1",
        "IMG-20200101-WA0001",
        "Capture d’écran 2020-01-01 à 10.00.00",
        "Снимок экрана 2020-01-01 в 10.00.00",
        "Schermata 2020-01-01 alle 10.00.00",
        "Captura de Tela 2020-01-01 às 10.00.00",
        "Skærmbillede 2020-01-01 kl. 10.00.00",
        "屏幕快照 2020-01-01 上午10.00.00",
        "微信图片_20200101120000",
        "KakaoTalk_20200101_120000",
        "shutterstock_123456789",
        "shutterstock 123456789",
        "AdobeStock_12345678",
        "GettyImages-123456789",
        "Fotolia_12345678_XS",
        "logo-2",
        "DJI_0001",
        "DJI 0001",
        "Screen Shot 2020-01-01",
        "IMG 12",
        "Screen 1.png",
        "a1b2c3d4e5xyz9k8",
    ],
)
def test_file_names(text: str) -> None:
    """What cameras, phones and content systems call their files is a file name."""
    assert judged([text]) == [Reason.FILE_NAME]


@pytest.mark.parametrize(
    "text",
    [
        "image",
        "Image",
        "LOGO",
        "icon",
        "image 3",
        "photo 1 of 12",
        "Slide 4",
        "Figure 2.",
        "Bild 3",
        "фото 2",
        "the product image",
        "Click here!",
        "read more ...",
        "Más información",
        "Share on Facebook",
        "图片",
        "続きを読む",
        "صورة",
        "Avatar",
        "Untitled",
        "untitled 3",
        "Avatar 1234",
        "unnamed (1)",
        "logo-white",
        "menu icon",
        "Image may contain: text",
        "No photo description available.",
        "tracking pixel",
        "1x1",
        "alt text",
        "image title",
        "Next slide",
    ],
)
def test_boilerplate(text: str) -> None:
    """What names the medium, the place in the page or what to do is boilerplate, in any case."""
    assert judged([text]) == [Reason.BOILERPLATE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a dog",
        "Logo of example.com",
        "Tweet by @a.jpg is great",
        "two dogs.jpg",
        "the image of a dog",
        "example.com",
        "camera",
        "WhatsApp",
        "500 mg",
        "1984",
        "2019",
        "Room 101",
        "iPhone 12",
        "Airbus A380",
        "COVID-19",
        "3D",
        "facade",
        "a bird.",
        ".jpg and .png explained",
        "click here to see the Eiffel Tower",
        "照片里的狗",
        "DJI Mini 2",
        "WP 7",
        "Screen 1",
        "WhatsApp logo",
        "Untitled, 1970",
        "Untitled (1970-71)",
        "Avatar (2009)",
        "Figure 8",
        "The Big Picture",
        "Icon A5",
        "#worldcup2018russia",
        "worldcup2018russia",
        "Photo worldcup2018russia",
        "#a1b2c3d4e5xyz9k8",
        "facade2020",
        "Image may contain: 2 people, dog",
        "white-black",
        "restaurant menu",
    ],
)
def test_texts_that_say_something(text: str) -> None:
    """One word that says something is enough."""
    assert judged([text]) == [""]


@given(st.lists(st.text(max_size=20), max_size=8))
def test_a_text_is_judged_alone(texts: list[str]) -> None:
    """Any text gets one answer at most, whatever stands beside it."""
    together = judged(texts)
    assert together == [answer for text in texts for answer in judged([text])]
    assert set(together) <= {"", Reason.FILE_NAME, Reason.BOILERPLATE}


@given(st.text("0123456789abcdefx-_. ", max_size=30))
def test_a_word_that_says_something_saves_any_name(name: str) -> None:
    """Whatever numbers and hashes stand beside it, separate words of a caption are kept."""
    assert judged([f"two dogs {name} playing"]) == [""]


def test_lengths_are_in_characters_and_both_bounds_are_allowed() -> None:
    """A text of exactly the least or the most characters is neither too short nor too long."""
    texts = pa.array(["éé", "ééé", "東東東東", "東東東東東"])
    assert filters.too_short(texts, 3).tolist() == [True, False, False, False]
    assert filters.too_long(texts, 4).tolist() == [False, False, False, True]


def test_a_slice_is_judged_as_a_column_of_its_own() -> None:
    """A sliced column gives the answers of its own rows."""
    texts = pa.array(["a dog", "logo", "a cat", "IMG_1.jpg"]).slice(1)
    found = filters.say_nothing(texts, normalise_column(texts))
    assert found[Reason.BOILERPLATE].tolist() == [True, False, False]
    assert found[Reason.FILE_NAME].tolist() == [False, False, True]


def test_lists_are_what_they_say() -> None:
    """Words are single tokens, no word is listed twice in a list, every ending fits its limit."""
    for listed in (
        sayings.WORDS,
        sayings.TITLES,
        sayings.NAMES,
        sayings.PRODUCTS,
        sayings.NEUTRAL,
        sayings.UNSPACED_NAMES,
        sayings.UNSPACED_NEUTRAL,
        sayings.ENDINGS,
    ):
        words = normalise_column(pa.array(listed.split())).to_pylist()
        assert all(word and " " not in word for word in words)
        assert sorted(set(words)) == sorted(words)
    assert max(map(len, sayings.ENDINGS.split())) == filters._LONGEST_ENDING
    for listed in (sayings.PHRASES, sayings.NAMESAKES):
        phrases = normalise_column(pa.array(sayings.lines(listed))).to_pylist()
        assert all(phrases)
        assert sorted(set(phrases)) == sorted(phrases)
