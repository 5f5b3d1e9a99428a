"""An evaluation from what was asked to the files that it leaves: what ``wit eval`` does."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np
import pyarrow.parquet as pq

from wit_builder import storage
from wit_builder.errors import TrainingError
from wit_train import trained
from wit_train.embedding import Embedding
from wit_train.evaluate import best_and_worst, page, probe, results, sets, statistics
from wit_train.evaluate.examples import Examples
from wit_train.evaluate.features import Collected, collected
from wit_train.evaluate.prompts import templates_of
from wit_train.evaluate.results import Probe, Result, Results, Shot
from wit_train.evaluate.retrieval import Sides, retrieval, sides
from wit_train.evaluate.sets import TestSet
from wit_train.evaluate.zero_shot import Measured, zero_shot
from wit_train.overlap import analysis
from wit_train.ranks import Ranks

Told = Callable[[str], None]

_HASH_BITS = 64


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to measure; what is empty is not asked for.

    Attributes:
        model, pretrained: as ``trained.load`` takes them.
        precision: of the model's activations: fp32, bf16 or fp16; by default as trained.
        images: test set with classes: zero-shot classification.
        names: its classes, where it does not name them itself.
        template, templates: prompts one by one; a file of them, or a name of open_clip's.
        compare_prompts: whether each is measured alone, too.
        pairs: test set with captions: retrieval.
        train, validation: sets with the classes of ``images``: linear probe.
        few_shot: pictures of each class, for probes on so few.
        overlap: data sets that the model was trained on.
        threshold: least cosine of two pictures that count as one; None: it is measured.
        distance: most bits by which their perceptual hashes may differ.
        out: folder for the files; none: nothing is written.
    """

    model: str
    pretrained: str = ""
    precision: Literal["", "fp32", "bf16", "fp16"] = ""
    images: str = ""
    names: str = ""
    template: Sequence[str] = ()
    templates: str = ""
    compare_prompts: bool = False
    pairs: str = ""
    train: str = ""
    validation: str = ""
    few_shot: Sequence[int] = ()
    overlap: Sequence[str] = ()
    threshold: float | None = None
    distance: int = analysis.Options().distance
    out: str = ""


class _Sets(msgspec.Struct, frozen=True):
    """The test sets that were asked for, open."""

    images: TestSet | None
    templates: list[str]
    pairs: TestSet | None
    train: TestSet | None
    validation: TestSet | None


def evaluate(asked: Asked, ranks: Ranks, told: Told) -> Results:
    """Measure all that was asked for, and write ``out``; every rank must ask.

    Args:
        asked: what to measure.
        ranks: who shares the work; the first one writes.
        told: is given a line about what is being done, on the first rank.

    Returns:
        What was found; on other ranks without probe and overlap.

    Raises:
        TrainingError: the question makes no sense, or a test set is not what it should be.
        WitError: model, sets or shards cannot be read.
    """
    told = told if ranks.rank == 0 else (lambda _: None)
    check(asked)
    opened = _opened(asked)
    if asked.out and ranks.rank == 0:
        _refuse_taken(asked)
    embedding = trained.load(
        asked.model, asked.pretrained, str(ranks.device), precision=asked.precision
    )
    found = Results(model=embedding.name, weights=embedding.digest, step=embedding.step)
    named: Measured | None = None
    if opened.images:
        told(f"zero-shot on {storage.redact(asked.images)}")
        compare = asked.compare_prompts
        named = zero_shot(embedding, opened.images, opened.templates, ranks, compare=compare)
        found = msgspec.structs.replace(found, zero_shot=named.result)
    both: Sides | None = None
    if opened.pairs:
        told(f"retrieval on {storage.redact(asked.pairs)}")
        both = sides(embedding, opened.pairs, ranks)
        found = msgspec.structs.replace(found, retrieval=retrieval(both, opened.pairs))
    if opened.train:
        probed = _probe(embedding, opened, asked, ranks, told)
        found = msgspec.structs.replace(found, probe=probed)
    if ranks.rank:
        return found
    if asked.out:
        _write(asked.out, found, named, opened, both)
    if asked.overlap:
        assert named  # check saw to it
        assert opened.images
        options = analysis.Options(threshold=asked.threshold, distance=asked.distance)
        twice = analysis.search(
            embedding,
            opened.images,
            named.predictions,
            asked.overlap,
            options,
            out=asked.out,
            told=told,
        )
        found = msgspec.structs.replace(found, overlap=twice)
        _write(asked.out, found, named, opened, both)
    return found


def check(asked: Asked) -> None:
    """Refuse questions that lack a part, or have one that would change nothing.

    Raises:
        TrainingError: this one does.
    """
    usual = Asked(model="")
    lacking = [
        ("--names", asked.names, "--images", asked.images),
        ("--template", asked.template, "--images", asked.images),
        ("--templates", asked.templates, "--images", asked.images),
        ("--threshold", asked.threshold is not None, "--overlap", asked.overlap),
        ("--distance", asked.distance != usual.distance, "--overlap", asked.overlap),
        ("--train", asked.train, "--images", asked.images),
        ("--overlap", asked.overlap, "--images", asked.images),
        ("--overlap", asked.overlap, "--out", asked.out),
        ("--validation", asked.validation, "--train", asked.train),
        ("--few-shot", asked.few_shot, "--train", asked.train),
        ("--compare-prompts", asked.compare_prompts, "--images", asked.images),
    ]
    for option, given, other, value in lacking:
        if given and not value:
            raise TrainingError(
                f"{option} needs {other}", where=option, fix=f"give {other} as well"
            )
    if not (asked.images or asked.pairs):
        raise TrainingError("evaluate on what?", fix="give --images or --pairs")
    if not (-1 <= (asked.threshold or 0) <= 1 and 0 <= asked.distance <= _HASH_BITS):
        raise TrainingError(
            "a cosine lies between -1 and 1, a distance between 0 and 64",
            where="--threshold, --distance",
            fix="leave them out",
        )


def _refuse_taken(asked: Asked) -> None:
    """Refuse a folder for the files where something else is, and one that cannot be written.

    Raises:
        TrainingError: another program's files, or a test set, is there.
        StorageError: it cannot be written.
    """
    own = [results.RESULTS, results.PREDICTIONS_TABLE, results.PAGE]
    there = set(storage.sizes(asked.out))
    read = [asked.images, asked.pairs, asked.train, asked.validation, *asked.overlap]
    taken = there.intersection(own) and results.RESULTS not in there
    if taken or asked.out.rstrip("/") in [place.rstrip("/") for place in read if place]:
        raise TrainingError(
            "something else is in the folder for the results",
            where=storage.redact(asked.out),
            fix="name a folder of its own",
        )
    for left in (*own[1:], *analysis.files()):  # what an earlier evaluation found, this may not
        if storage.exists(place := storage.join(asked.out, left)):
            storage.remove(place)
    mark = storage.join(asked.out, ".writing")  # what was measured shall not be lost in the end
    storage.publish_bytes(mark, b"")
    storage.remove(mark)


def _opened(asked: Asked) -> _Sets:
    images = sets.opened(asked.images, asked.names) if asked.images else None
    own = images.templates if images else []
    analysis.distinct(asked.overlap)  # a wrong name shows before any work
    return _Sets(
        images,
        templates_of(asked.template, asked.templates, own) if images else [],
        sets.opened(asked.pairs, captions=True) if asked.pairs else None,
        sets.opened(asked.train, asked.names) if asked.train else None,
        sets.opened(asked.validation, asked.names) if asked.validation else None,
    )


def _probe(
    embedding: Embedding, opened: _Sets, asked: Asked, ranks: Ranks, told: Told
) -> Probe | None:
    """Return what linear probes find, on the first rank."""
    assert opened.images
    tests = [t for t in (opened.images, opened.train, opened.validation) if t is not None]
    looked = list[tuple[Collected, Examples]]()
    for test, numbers in [(test, _numbers(test, opened.images)) for test in tests]:
        told(f"features of {storage.redact(test.place)}")
        features = collected(embedding, test, ranks, unprojected=True)
        looked.append((features, Examples(features.image_ND, numbers[features.target_N])))
    if ranks.rank:
        return None
    (test_set, judged), (_, learned), *rest = looked
    validation = rest[0][1] if rest else None
    whole = probe.linear_probe(learned, validation, judged, told=told)
    shots = list[probe.Shot]()
    if asked.few_shot:
        shots = probe.few_shot(learned, validation, judged, asked.few_shot, told=told)
    noted = [note for test in tests for note in test.notes]
    of_shots = [note for shot in shots for note in shot.notes]
    left_out = [
        f"{why}: {n:,} pictures to learn from"
        for f, _ in looked[1:]
        for why, n in f.left_out.items()
    ]
    result = Result(
        data=storage.redact(opened.images.place),
        scores=statistics.classification(whole.rank_N, judged.target_N, len(opened.images.classes)),
        pictures=len(judged.target_N),
        classes=len(opened.images.classes),
        left_out=test_set.left_out,
        undecodable=test_set.undecodable,
        notes=list(dict.fromkeys([*noted, *whole.notes, *left_out, *of_shots])),
    )
    return Probe(
        result=result,
        strength=whole.strength,
        sweep=whole.swept,
        train=whole.train,
        validation=whole.validation,
        converged=whole.converged,
        few_shot=[Shot(s.k, s.mean, s.accuracies, s.strength, s.short) for s in shots],
    )


def _numbers(test: TestSet, judged: TestSet) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the number that each class of a set has in the set to judge by.

    Raises:
        TrainingError: a class is not there.
    """
    if test.classes == judged.classes:
        return np.arange(len(test.classes))
    number = {name: i for i, name in enumerate(judged.classes)}
    if len(number) < len(judged.classes):
        raise TrainingError(
            "two classes of one name, and another list of classes to learn",
            where=storage.redact(judged.place),
            fix="name the classes of both with --names",
        )
    unknown = [name for name in test.classes if name not in number]
    if unknown:
        raise TrainingError(
            f"{len(unknown):,} classes are not among those of the test set, such as {unknown[0]!r}",
            where=storage.redact(test.place),
            fix="name the classes of both with --names",
        )
    return np.array([number[name] for name in test.classes], np.int64)


def _write(
    out: str, found: Results, named: Measured | None, opened: _Sets, both: Sides | None
) -> None:
    """Write the files."""
    storage.publish_bytes(storage.join(out, results.RESULTS), results.encoded(found))
    if named and opened.images:
        names = {results.CLASSES: msgspec.json.encode(opened.images.classes)}
        table = io.BytesIO()
        pq.write_table(named.predictions.replace_schema_metadata(names), table)
        storage.publish_bytes(storage.join(out, results.PREDICTIONS_TABLE), table.getvalue())
    html = page.page(
        found,
        named and named.predictions,
        opened.images.classes if opened.images else [],
        opened.images.pictures if opened.images else lambda _: {},
        best_and_worst.examples(both) if both else [],
        opened.pairs.pictures if opened.pairs else None,
    )
    storage.publish_bytes(storage.join(out, results.PAGE), html.encode())
