"""What an evaluation found: ``results.json``, and the table of single predictions beside it."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from wit_builder import storage
from wit_builder.errors import TrainingError

RESULTS, PREDICTIONS_TABLE, PAGE = "results.json", "predictions.parquet", "index.html"
"""Files in the folder of an evaluation."""

PREDICTIONS = pa.schema(
    [
        ("index", pa.int64()),  # position in the test set
        ("picture", pa.string()),  # how people find it
        ("target", pa.int32()),  # its class
        ("predicted", pa.int32()),  # the class that scored best
        ("rank", pa.int32()),  # of the right class: 0 is first, ties count against the model
        ("score", pa.float32()),  # cosine with the predicted class
        ("margin", pa.float32()),  # by which it is above the next class
        ("top5", pa.list_(pa.int32())),  # the classes that scored best, in order
    ]
)
"""One row a picture that was measured, in the order of the test set.

The names of the classes are in the schema's metadata, as a JSON list under ``CLASSES``.
"""

CLASSES = b"wit.classes"


class Score(msgspec.Struct, frozen=True):
    """A measured share.

    Attributes:
        value: in [0, 1].
        chance: what guessing would give; None where that is not known.
        low, high: confidence interval at 95 %; None where there is none.
    """

    value: float
    chance: float | None = None
    low: float | None = None
    high: float | None = None


class Prompt(msgspec.Struct, frozen=True):
    """A wording, such as ``a photo of a {}``, and what it reaches when it is used alone."""

    wording: str
    top1: Score


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on one test set.

    Attributes:
        data: where the test set is.
        scores: by name: ``top1``, ``top5``, ``mean_per_class``, ``roc_auc``; or
            ``text_by_image_r1`` and the like.
        pictures: that were measured.
        classes: to choose from.
        texts: to find, in retrieval.
        left_out: pictures of the set that were not measured, by reason.
        undecodable: names of those that do not decode; counted in ``left_out``.
        notes: what else a reader must know.
        templates: the prompts of the classifier.
        prompts: each of them alone, where that was asked for.
        empty_classes: classes to choose from of which there is no picture.
    """

    data: str
    scores: dict[str, Score]
    pictures: int
    classes: int = 0
    texts: int = 0
    left_out: dict[str, int] = {}
    undecodable: list[str] = []
    notes: list[str] = []
    templates: list[str] = []
    prompts: list[Prompt] = []
    empty_classes: list[str] = []


class Shot(msgspec.Struct, frozen=True):
    """A linear probe trained on a few pictures of each class.

    Attributes:
        shots: pictures of a class.
        top1: mean over the draws.
        draws: top-1 of each.
        strength: of the L2 penalty.
        short: classes that have fewer pictures than that; all of theirs are used.
    """

    shots: int
    top1: float
    draws: list[float]
    strength: float
    short: int = 0


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A linear probe: logistic regression on the pictures' features.

    Attributes:
        result: on the test set.
        strength: of the L2 penalty, lambda.
        sweep: strengths that were tried with their accuracy on the validation set.
        train, validation: pictures.
        converged: whether the last fit ended before its limit of iterations.
        few_shot: with a few pictures of each class.
    """

    result: Result
    strength: float
    sweep: list[tuple[float, float]]
    train: int
    validation: int
    converged: bool
    few_shot: list[Shot] = []


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """How far a test set was trained on (CLIP paper, section 5 and appendix C).

    Attributes:
        shards: the training data.
        hashed: training pictures that were compared.
        pictures: of the test set.
        candidates: test pictures with a training picture of a near hash.
        overlapping: of these, those that the embedding confirmed.
        threshold: least cosine of what counts as the same picture.
        distance: most bits by which hashes may differ.
        all, overlap, clean: top-1 on all, the overlapping and the other test pictures; None where
            there are none. The interval of ``overlap`` is at 99.5 %, as in the paper.
        inflation: all less clean.
        p_value: of the one-tailed test that ``overlap`` is not better than ``clean``.
        notes: what else a reader must know.
    """

    shards: list[str]
    hashed: int
    pictures: int
    candidates: int
    overlapping: int
    threshold: float
    distance: int
    all: Score
    overlap: Score | None
    clean: Score | None
    inflation: float | None
    p_value: float | None
    notes: list[str] = []


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured of a model in one go.

    Attributes:
        model: where it is, or open_clip's name of it.
        weights: digest of the weights; what an export of the same model has too.
        step: of training, for a model of ours.
    """

    model: str
    weights: str
    step: int | None = None
    zero_shot: Result | None = None
    retrieval: Result | None = None
    probe: Probe | None = None
    overlap: Overlap | None = None
    format: int = 1


def encoded(results: Results) -> bytes:
    """Return the JSON of results, for people too."""
    return msgspec.json.format(msgspec.json.encode(results)) + b"\n"


def read(place: str) -> Results:
    """Return the results in a file, or in the folder of an evaluation.

    Raises:
        TrainingError: it holds something else.
        StorageError: it cannot be read.
    """
    file = place if place.endswith(".json") else storage.join(place, RESULTS)
    try:
        return msgspec.json.decode(storage.read_bytes(file), type=Results)
    except msgspec.MsgspecError as error:
        fix = f"name a {RESULTS} that `wit eval --out` wrote"
        raise TrainingError(
            f"no results of an evaluation: {error}", where=storage.redact(file), fix=fix
        ) from error
