"""The analysis of overlap as a whole: what ``wit eval --overlap`` does.

Memory: the test set's hashes and names, one part of the training hashes a thread, and the pairs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.errors import TrainingError
from wit_builder.shards.read import Dataset
from wit_train.embedding import Embedding
from wit_train.evaluate.html import quantity
from wit_train.evaluate.item import TestSet
from wit_train.evaluate.results import Overlap
from wit_train.overlap import candidates, confirm, lists, page, threshold
from wit_train.overlap.account import account
from wit_train.overlap.alignment import shrunk
from wit_train.overlap.candidates import Found, Questions
from wit_train.overlap.confirm import Likeness, Pair
from wit_train.overlap.hashed import Hashing, State
from wit_train.overlap.sources import Training, training
from wit_train.overlap.threshold import Measured
from wit_train.overlap.variants import VARIANTS

FOLDER = "overlap"
"""In the folder of an evaluation."""

_POOR = 0.2
"""Share of pictures whose nearest other reaches the threshold: from there a model is no judge."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How overlap is looked for.

    Attributes:
        threshold: least cosine of two pictures that count as one; None: measured (``threshold``).
        correlation: least correlation of their pixels.
        distance: most bits by which hashes may differ. 10 finds what decision 0053 says; beyond
            some ten million training pictures 8 brings fewer candidates that are none.
        most: training pictures of a test picture and data set that are looked at, the nearest by
            hash.
        cache: folder for hashes that had to be made; empty: ``~/.cache/wit-builder/hashes``.
        processes: to make them with; 0: one a core.
    """

    threshold: float | None = None
    correlation: float = 0.85
    distance: int = 10
    most: int = 64
    cache: str = ""
    processes: int = 0


def search(
    embedding: Embedding,
    test: TestSet,
    predictions: pa.Table,
    shards: Sequence[str],
    options: Options,
    *,
    out: str = "",
    told: Callable[[str], None] = print,
) -> Overlap:
    """Return how far a test set was trained on; table, lists and page are in ``out/overlap``.

    Args:
        embedding: the model that confirms.
        test: the set that was measured.
        predictions: with ``index`` and ``rank``, a row a picture that was measured.
        shards: folders of training data sets, local or remote.
        options: how.
        out: folder of the evaluation, local or remote; empty: nothing is written but the cache.
        told: is told how it gets on.

    Raises:
        TrainingError: the test set is empty, or no picture of it was measured.
        ShardFormatError: there is no data set, or a damaged one.
        StorageError: something cannot be read or written.
    """
    if not predictions.num_rows:
        raise TrainingError("no picture of the test set was measured", where=test.place)
    datasets = distinct(shards)
    asked = candidates.questions(test.items(), storage.redact(test.place))
    told(f"{len(asked.asking):,} test pictures ask by {len(asked.hash_Q):,} hashes")
    pairs, counts = _near(asked, datasets, options, told)
    measured = _measured(embedding, test, asked)
    least = measured.threshold if options.threshold is None else options.threshold
    told(f"{len(pairs):,} pairs of near hashes; a cosine of {least:.3f} makes them the same")
    likely = confirm.likenesses(embedding, test, datasets, pairs, options.correlation)
    table = _table(asked, datasets, pairs, list(likely), least)
    notes = [*_not_compared(asked, counts, table, options), *_on_threshold(measured, options)]
    result = _result(counts, table, predictions, options, least)
    result = replace(result, shards=[storage.redact(d.url) for d in datasets], notes=notes)
    if out:
        folder = storage.join(out, FOLDER)
        listed = lists.write(folder, table)
        shown = page.chosen(table, least)
        both = _pictures(test, datasets, [pairs[row] for row in shown])
        text = page.render(result, table, listed, measured, dict(zip(shown, both, strict=True)))
        storage.publish_bytes(storage.join(folder, lists.PAGE), text.encode())
    return result


# --- candidates -------------------------------------------------------------


def files() -> list[str]:
    """Return the names, in the folder of an evaluation, of what an analysis writes."""
    names = [lists.TABLE, lists.PAGE, *(f"{lists.BLOCK}/{name}.txt" for name in lists.NAMES)]
    return [f"{FOLDER}/{name}" for name in names]


def distinct(shards: Sequence[str]) -> list[Dataset]:
    """Return data sets, open; one that is named twice, wherever it lies, once.

    Raises:
        ShardFormatError: there is no data set, or a damaged one.
        StorageError: it cannot be read.
    """
    return list({found.info.digest: found for found in map(Dataset.open, shards)}.values())


def _near(
    asked: Questions, datasets: Sequence[Dataset], options: Options, told: Callable[[str], None]
) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs of near hashes, by test picture, and what the pictures searched are."""
    processes = options.processes or len(os.sched_getaffinity(0))
    hashing = Hashing(options.cache or _user_cache(), processes, told)
    pairs, counts, crowded = list[Pair](), Counter[str](), set[int]()
    for data, dataset in enumerate(datasets):
        for source in training(dataset, hashing):
            found = candidates.search(
                asked, source, distance=options.distance, most=options.most, told=told
            )
            if source.is_whole():
                break
            told("the run's tables have not all pictures of the shards: hashing these instead")
        pairs += _placed(found, source, data)
        counts += found.counts
        crowded |= found.crowded
    counts["crowded"] = len(crowded)
    # nearest first; then in the order of data sets, shards and samples, which sorting keeps
    return sorted(pairs, key=lambda pair: (pair.test, pair.bits)), counts


def _placed(found: Found, source: Training, data: int) -> list[Pair]:
    """Return the pairs whose training picture is in a shard, each once."""
    columns = [column.tolist() for column in found.pairs]
    places = source.places(set(zip(columns[3], columns[4], strict=True)))
    unique: dict[tuple[int, str, str], Pair] = {}
    for index, bits, variant, part, row, phash in zip(*columns, strict=True):  # 1 us a pair
        if place := places.get((part, row)):
            pair = Pair(index, data, place, bits, variant, phash % (1 << 64))
            unique.setdefault((index, place.shard, place.key), pair)
    return list(unique.values())


def _user_cache() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return storage.join(home, "wit-builder", "hashes")


# --- what became of them ----------------------------------------------------


def _measured(embedding: Embedding, test: TestSet, asked: Questions) -> Measured:
    """Return the default threshold, measured on test pictures from all over the set."""
    known = sorted(asked.asking)
    step = max(1, len(known) // threshold.PICTURES)
    encoded = test.pictures(known[::step][: threshold.PICTURES])
    decoded = [shrunk(encoded[index]) for index in sorted(encoded)]
    return threshold.measured(embedding, [picture for picture in decoded if picture is not None])


def _table(
    asked: Questions,
    datasets: Sequence[Dataset],
    pairs: Sequence[Pair],
    likenesses: Sequence[Likeness],
    least: float,
) -> pa.Table:
    """Return the rows of ``lists.PAIRS``; only confirmed pairs' JSON is read."""
    is_confirmed = [like.cosine is not None and like.cosine >= least for like in likenesses]
    known = confirm.told_of(
        datasets, [p for p, yes in zip(pairs, is_confirmed, strict=True) if yes]
    )
    rows = []
    for pair, like, confirmed in zip(pairs, likenesses, is_confirmed, strict=True):
        name, phash = asked.asking[pair.test]
        place, told = pair.place, known.get((pair.data, pair.place), confirm.Told())
        rows.append(
            {
                "index": pair.test,
                "picture": name,
                "data": storage.redact(datasets[pair.data].url),
                "shard": place.shard,
                "key": place.key,
                "uid": place.uid.hex() if place.uid else told.uid,
                "url": told.url and storage.redact(told.url),
                "sha256": told.sha256,
                "distance": pair.bits,
                "variant": VARIANTS[pair.variant].name,
                "correlation": like.correlation,
                "cosine": like.cosine,
                "confirmed": confirmed,
                "phash": f"{phash:016x}",
                "training_phash": f"{pair.phash:016x}",
            }
        )
    return pa.Table.from_pylist(rows, lists.PAIRS)


def _result(
    counts: Counter[str],
    table: pa.Table,
    predictions: pa.Table,
    options: Options,
    least: float,
) -> Overlap:
    overlapping = set(table["index"].filter(table["confirmed"]).to_pylist())
    accuracy = account(predictions, overlapping)
    return Overlap(
        shards=[],
        hashed=counts[State.HASHED.words],
        pictures=predictions.num_rows,
        candidates=len(set(table["index"].to_pylist())),
        overlapping=len(overlapping),
        threshold=least,
        distance=options.distance,
        **accuracy._asdict(),
    )


def _not_compared(
    asked: Questions, counts: Counter[str], table: pa.Table, options: Options
) -> Iterator[str]:
    """Yield what was left out, on either side."""
    kinds = [state.words for state in State if state != State.HASHED and counts[state.words]]
    if kinds:
        said = ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds)
        yield f"Training pictures that were not compared: {said}."
    if flat := asked.left_out.get(State.FLAT.words):
        yield f"Test pictures of one brightness, not compared and counted as clean: {flat:,}."
    if counts["crowded"]:
        yield (
            f"Of {quantity(counts['crowded'], 'test pictures')} the {options.most} nearest "
            "training pictures of a data set were looked at: more are near. Once those that are "
            "listed are taken out, look again."
        )
    if unread := table["correlation"].null_count:
        yield f"Pairs of near hashes of which one picture does not decode: {unread:,}."


def _on_threshold(measured: Measured, options: Options) -> Iterator[str]:
    others = f"{100 * measured.others_kept:.0f} %"
    if options.threshold is None:
        yield (
            f"The threshold was not set by eye: {100 * threshold.KEPT:.0f} % of copies made of "
            f"test pictures reach it. So does, of {others} of test pictures, the one most like "
            "them among the others that were tried."
        )
    if measured.others_kept > _POOR:
        yield (
            "This model can hardly tell copies from pictures that are alike: look at the pairs, "
            "or confirm with another model."
        )


def _pictures(
    test: TestSet, datasets: Sequence[Dataset], pairs: Sequence[Pair]
) -> list[tuple[bytes, bytes]]:
    """Return both pictures of some pairs, encoded."""
    tests = test.pictures(sorted({pair.test for pair in pairs}))
    return [(tests.get(p.test, b""), confirm.picture_bytes(datasets, p)) for p in pairs]
