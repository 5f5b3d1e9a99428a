"""One pair per URL, whatever the order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import exchange, storage
from wit_builder.curate import repeats
from wit_builder.curate.dedup import DedupJob, dedup, run
from wit_builder.hashing import hash_column, label_seed
from wit_builder.tables import MATCHED
from wit_builder.units import Done


def pair(url: int, text: int, page: str | None = "p") -> dict[str, Any]:
    """A matched pair whose uid is made from URL and text."""
    return {
        "uid": xxhash.xxh3_128_digest(b"%d|%d" % (url, text)),
        "url": f"http://a.test/{url}",
        "text": f"text {text}",
        "text_from": "alt",
        "page_url": page,
        "license": None,
        "archive": "a",
        "found_at": None,
        "query_ids": [text],
    }


def table(pairs: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(pairs, MATCHED)


places = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(["p", "q", None]))


@given(st.lists(places, max_size=40), st.randoms(use_true_random=False))
def test_one_pair_per_url_and_nothing_lost(
    rows: list[tuple[int, int, str | None]], shuffler: random.Random
) -> None:
    """Each URL keeps the text lowest in the seeded hash; kept and dropped together are all rows."""
    pairs = [pair(*row) for row in rows]
    kept, dropped = dedup(table(pairs), seed=3)
    assert kept.num_rows + dropped.num_rows == len(pairs)
    assert sorted(kept["url"].to_pylist()) == sorted({p["url"] for p in pairs})
    seed = label_seed(3, "dedup")
    for row in kept.to_pylist():
        rivals = [p["uid"] for p in pairs if p["url"] == row["url"]]
        assert row["uid"] == min(rivals, key=lambda uid: xxhash.xxh64_intdigest(uid, seed))
    shuffled = list(pairs)
    shuffler.shuffle(shuffled)
    assert dedup(table(shuffled), seed=3)[0].sort_by("uid").equals(kept.sort_by("uid"))


def test_a_pair_found_twice_keeps_the_lowest_page() -> None:
    """The same pair on two pages is one pair, from the page first in order."""
    kept, dropped = dedup(table([pair(1, 1, "z"), pair(1, 1, "a")]), seed=0)
    assert kept["page_url"].to_pylist() == ["a"]
    assert dropped["page_url"].to_pylist() == ["z"]


def test_a_pair_of_two_archives_of_one_name_does_not_depend_on_their_order() -> None:
    """Rows that differ in the licence alone are put in order by it."""
    rows = [pair(1, 1) | {"license": said} for said in ("http://b.test/", "http://a.test/")]
    kept = [dedup(table(order), seed=0)[0] for order in (rows, rows[::-1])]
    assert kept[0].equals(kept[1])


@given(st.lists(st.tuples(places, st.sampled_from(["a", "b"])), max_size=30), st.data())
def test_which_of_equal_pairs_stays_does_not_depend_on_order_or_chunks(
    rows: list[tuple[tuple[int, int, str | None], str]], data: st.DataObject
) -> None:
    """Of a pair found in many places the row lowest in all columns stays, nulls last."""
    pairs = [pair(*row) | {"license": said} for row, said in rows]
    seed = label_seed(0, "dedup")

    def key(p: dict[str, Any]) -> tuple[Any, ...]:
        place = xxhash.xxh64_intdigest(p["uid"], seed)
        return place, p["page_url"] is None, p["page_url"] or "", p["license"]

    expected: dict[str, dict[str, Any]] = {}
    for p in sorted(pairs, key=key):
        expected.setdefault(p["url"], p)
    shuffled = data.draw(st.permutations(pairs))
    cut = data.draw(st.integers(0, len(pairs)))
    kept, _ = dedup(pa.concat_tables([table(shuffled[:cut]), table(shuffled[cut:])]), seed=0)
    found = {row["url"]: (row["uid"], row["page_url"], row["license"]) for row in kept.to_pylist()}
    assert kept.num_rows == len(found)
    assert found == {u: (p["uid"], p["page_url"], p["license"]) for u, p in expected.items()}


def published(folder: Path, pairs: list[dict[str, Any]], **options: Any) -> tuple[Done, DedupJob]:
    """Run the unit of one bucket on some pairs."""
    source = str(folder / "m.arrow")
    exchange.scatter(table(pairs), np.zeros(len(pairs), int), 1, source)
    out, rejected = str(folder / "out.parquet"), str(folder / "rejected.parquet")
    job = DedupJob([source], 0, 3, out, rejected, "list", **options)
    return run(job), job


def test_pairs_of_repeated_texts_go_before_the_choice(tmp_path: Path) -> None:
    """A URL whose lowest text is repeated keeps the lowest of its others."""
    pairs = [pair(1, 1), pair(1, 2), pair(2, 1)]
    lowest = dedup(table(pairs[:2]), seed=3)[0]["text"][0].as_py()
    place = str(tmp_path / "repeated.parquet")
    storage.write_parquet(place, pa.table({"text": hash_column(pa.array([lowest]))}))
    done, job = published(tmp_path, pairs, repeated=[place])
    kept = storage.read_parquet(job.out)
    others = sorted(p["url"] for p in pairs if p["text"] != lowest)
    assert sorted(kept["url"].to_pylist()) == others
    assert lowest not in kept["text"].to_pylist()
    gone = sum(p["text"] == lowest for p in pairs)
    assert done.counts == {
        "pairs": len(others),
        "rejected:duplicate_url": 0,
        "rejected:repeated_text": gone,
    }
    reasons = storage.read_parquet(job.rejected)["reason"].to_pylist()
    assert reasons == ["repeated_text"] * gone


def test_urls_of_earlier_generations_are_not_taken_again(tmp_path: Path) -> None:
    """Every pair of such a URL is a duplicate, whatever its text."""
    earlier = [str(tmp_path / f"earlier-{n}.parquet") for n in range(2)]
    for number, place in enumerate(earlier):
        storage.write_parquet(place, table([pair(number, 9)]))
    done, job = published(
        tmp_path, [pair(0, 1), pair(0, 2), pair(1, 9), pair(2, 1)], earlier=earlier
    )
    assert storage.read_parquet(job.out)["url"].to_pylist() == ["http://a.test/2"]
    assert storage.read_parquet(job.rejected)["reason"].to_pylist() == ["duplicate_url"] * 3
    assert done.counts == {"pairs": 1, "rejected:duplicate_url": 3}


def test_a_bucket_without_pairs_is_an_empty_table(tmp_path: Path) -> None:
    """Nothing in, nothing out, in the same columns."""
    done, job = published(tmp_path, [])
    assert storage.read_parquet(job.out).column_names == MATCHED.names
    assert done.counts == {"pairs": 0, "rejected:duplicate_url": 0}


def test_the_texts_that_repeats_finds_are_those_that_dedup_drops(tmp_path: Path) -> None:
    """From uses to dedup: a slogan on three pictures goes, whatever its spelling."""
    pairs = [pair(n, n) | {"text": text} for n, text in enumerate(["Buy!", "buy", "BUY", "a dog"])]
    found = repeats.uses(pa.array(["buy", "buy", "buy", "a dog"]), table(pairs)["url"])
    uses, place = str(tmp_path / "f.uses"), str(tmp_path / "repeated.parquet")
    exchange.scatter(found, repeats.bucket_of(found, 1), 1, uses)
    repeats.run(repeats.RepeatsJob([uses], 0, 2, place))
    _, job = published(tmp_path, pairs, repeated=[place])
    assert storage.read_parquet(job.out)["text"].to_pylist() == ["a dog"]
