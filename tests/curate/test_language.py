"""The language of texts, told offline."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from wit_builder.curate import language
from wit_builder.errors import MissingPartError, RecipeError
from wit_builder.sections import MatchSection

SENTENCES = {
    "en": "a small dog is playing with a ball in the garden",
    "de": "ein kleiner Hund spielt im Garten mit einem Ball",
    "fr": "un petit chien joue avec une balle dans le jardin",
    "ru": "маленькая собака играет в саду мячом",
    "ja": "小さな犬が庭でボールで遊んでいます",
}


@pytest.fixture
def fresh() -> Iterator[None]:
    """No model is open yet, and none of this test's stays open."""
    language._model.cache_clear()
    language.known.cache_clear()
    language._of_nothing.cache_clear()
    yield
    language._model.cache_clear()
    language.known.cache_clear()
    language._of_nothing.cache_clear()


def test_languages_are_told() -> None:
    """Plain sentences get their language with a score between 0.5 and 1."""
    codes, scores = language.detect(pa.array(list(SENTENCES.values())))
    assert codes.to_pylist() == list(SENTENCES)
    assert ((scores > 0.5) & (scores <= 1)).all()


def test_odd_texts_get_an_answer() -> None:
    """Line ends, NULs and texts without a letter are told without an error."""
    texts = ["a dog\nin the garden", "a\0dog", "\n", "", "123", "🐕", "x" * 100_000]
    codes, scores = language.detect(pa.array(texts))
    assert len(codes) == len(scores) == len(texts)
    assert set(codes.to_pylist()) <= language.known() | {None}


def test_what_the_model_knows_nothing_of_has_no_language() -> None:
    """A text that is told as the empty one is has a null language, and is refused as unknown."""
    texts = pa.array(["", "Hund", "狗", "123", "🐕", "HUND", SENTENCES["en"]])
    codes, scores = language.detect(texts)
    assert codes.to_pylist() == [None] * 6 + ["en"]
    assert scores[:6].tolist() == [0.0] * 6
    told = language.tell(texts, MatchSection(languages=["en"], language_min_score=0.0))
    assert told.refused.tolist() == [True] * 6 + [False]
    assert told.details == ["unknown"] * 6


def test_no_texts() -> None:
    """An empty column gives empty columns."""
    codes, scores = language.detect(pa.array([], pa.string()))
    assert len(codes) == scores.size == 0


def test_the_same_text_gets_the_same_answer() -> None:
    """What stands beside a text does not matter, nor how often it comes."""
    texts = [*SENTENCES.values(), *reversed(SENTENCES.values()), SENTENCES["de"]]
    codes, scores = language.detect(pa.array(texts))
    for i, text in enumerate(texts):
        code, score = language.detect(pa.array([text]))
        assert code[0] == codes[i]
        assert score[0] == scores[i]


def test_capitals_are_read_in_lower_case() -> None:
    """A text all in capitals gets the language of the same text in lower case."""
    text = SENTENCES["de"].lower()
    upper, lower = language.detect(pa.array([text.upper(), text]))[0].to_pylist()
    assert upper == lower == "de"


def test_what_is_not_wanted_or_unsure_is_refused() -> None:
    """A text is refused for its language, or for a score below the least; the detail says both."""
    texts = pa.array([SENTENCES["en"], SENTENCES["de"], SENTENCES["fr"]])
    told = language.tell(texts, MatchSection(languages=["en", "fr"]))
    assert told.refused.tolist() == [False, True, False]
    [detail] = told.details
    code, score = detail.split()
    assert code == "de"
    assert 0.5 < float(score) <= 1
    _, scores = language.detect(texts)
    just = float(np.sort(scores)[1])
    section = MatchSection(languages=["en", "de", "fr"], language_min_score=just)
    assert language.tell(texts, section).refused.tolist() == (scores < just).tolist()


def test_an_unknown_language_is_refused_by_name() -> None:
    """A code that no text can get is an error that names the key and the code."""
    language.check(MatchSection(languages=["en", "zh"]))
    language.check(MatchSection())
    with pytest.raises(RecipeError, match=r"unknown language 'EN', 'deu' \[match.languages\]"):
        language.check(MatchSection(languages=["EN", "de", "deu"]))


def test_all_languages_of_the_model_are_known() -> None:
    """The model tells the 176 languages of its name apart."""
    assert len(language.known()) == 176


@pytest.mark.usefixtures("fresh")
def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model opens and answers where no socket can be made."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "socket", refuse)
    assert language.detect(pa.array([SENTENCES["en"]]))[0].to_pylist() == ["en"]


@pytest.mark.usefixtures("fresh")
def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the detector a recipe with languages ends in an error with the line that helps."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    language.check(MatchSection())
    with pytest.raises(MissingPartError, match=r"pip install 'wit-builder\[language\]'"):
        language.check(MatchSection(languages=["en"]))
