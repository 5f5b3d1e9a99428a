"""What becomes of candidates: matched, or rejected with the first reason that holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from wit_builder import exchange, storage
from wit_builder.curate import matching, repeats
from wit_builder.curate.match import Matcher
from wit_builder.curate.matching import MatchJob, sift
from wit_builder.errors import StorageError
from wit_builder.hashing import pair_uid
from wit_builder.sections import MatchSection
from wit_builder.tables import CANDIDATES, MATCHED, REJECTIONS
from wit_builder.text import normalise


def candidates(texts: list[str]) -> pa.Table:
    urls = [f"http://h.example/{i}.jpg" for i in range(len(texts))]
    rows = [
        {
            "uid": pair_uid(url, text),
            "url": url,
            "text": text,
            "text_from": "alt",
            "page_url": None,
            "license": None,
            "archive": "x",
            "found_at": None,
        }
        for url, text in zip(urls, texts, strict=True)
    ]
    return pa.Table.from_pylist(rows, CANDIDATES)


@pytest.fixture
def job(tmp_path: Path) -> MatchJob:
    queries = pa.table({"query": ["dog", "hot dog", "cat"]})
    storage.write_parquet(str(tmp_path / "queries.parquet"), queries)
    table = candidates(["a (dog)", "no", "a bird", "Hot dog!" * 9, "hot-dog", "category"])
    with pa.ipc.new_file(str(tmp_path / "c.arrow"), CANDIDATES) as writer:
        for start in range(0, 6, 4):
            writer.write_table(table.slice(start, 4))
    return MatchJob(
        candidates=str(tmp_path / "c.arrow"),
        queries=str(tmp_path / "queries.parquet"),
        queries_identity=str(tmp_path),
        section=MatchSection(min_chars=3, max_chars=50),
        buckets=4,
        matched=str(tmp_path / "m.arrow"),
        uses=str(tmp_path / "m.uses"),
        rejections=str(tmp_path / "r.parquet"),
    )


def test_run_scatters_what_matches_and_rejects_the_rest(job: MatchJob) -> None:
    """Every candidate is either matched, in its URL's bucket, or rejected with a reason."""
    done = matching.run(job)
    buckets = [exchange.gather([job.matched], b) for b in range(4)]
    for number, bucket in enumerate(buckets):
        assert (exchange.bucket_of(bucket["url"], 4) == number).all()
    matched = pa.concat_tables(buckets)
    assert matched.schema.equals(MATCHED)
    found = dict(zip(matched["text"].to_pylist(), matched["query_ids"].to_pylist(), strict=True))
    assert found == {"a (dog)": [0], "hot-dog": [0, 1]}
    rejected = storage.read_parquet(job.rejections)
    assert rejected.schema.equals(REJECTIONS)
    expected = {"no": "text_too_short", "Hot dog!" * 9: "text_too_long"}
    expected |= {"a bird": "no_query", "category": "no_query"}
    uid_of = {
        r["uid"]: r["text"] for b in storage.read_batches(job.candidates) for r in b.to_pylist()
    }
    assert {uid_of[r["uid"]]: r["reason"] for r in rejected.to_pylist()} == expected
    assert done.counts == {
        "candidates": 6,
        "matched": 2,
        "matches": 3,
        "rejected:no_query": 2,
        "rejected:text_too_long": 1,
        "rejected:text_too_short": 1,
    }
    assert [o.url for o in done.outputs] == [job.matched, job.matched + ".index", job.rejections]


def test_run_gives_the_same_bytes_each_time(job: MatchJob) -> None:
    """The same candidates and queries give the same files."""
    assert matching.run(job) == matching.run(job)


def test_a_new_query_list_is_not_mistaken_for_the_last(job: MatchJob) -> None:
    """A worker that keeps its matcher takes the new list when its identity changed."""
    matching.run(job)
    storage.write_parquet(job.queries, pa.table({"query": ["bird"]}))
    done = matching.run(msgspec.structs.replace(job, queries_identity="new"))
    assert done.counts["matched"] == 1


def test_no_candidates(job: MatchJob) -> None:
    """A unit without candidates publishes empty tables."""
    with pa.ipc.new_file(job.candidates, CANDIDATES):
        pass
    done = matching.run(job)
    assert done.counts == {"candidates": 0, "matched": 0, "matches": 0}
    assert exchange.gather([job.matched], 0).num_rows == 0


def test_a_damaged_candidates_file_is_an_error(job: MatchJob) -> None:
    """A candidates file that is not Arrow is an error that names it and the fix."""
    Path(job.candidates).write_bytes(b"not arrow")
    with pytest.raises(StorageError, match=r"not a readable Arrow or parquet file.*c\.arrow"):
        matching.run(job)


def reasons(texts: list[str], section: MatchSection, *queries: str) -> dict[str, str]:
    """Return the reason of each text that is rejected."""
    table = candidates(texts)
    rejected = sift(Matcher(pa.array(queries)), table, section).rejected
    text_of = dict(zip(table["uid"].to_pylist(), texts, strict=True))
    return {text_of[row["uid"]]: row["reason"] for row in rejected.to_pylist()}


def test_the_first_filter_that_a_text_fails_is_its_reason() -> None:
    """Length goes before file names, those before boilerplate, that before queries."""
    texts = ["l", "logo" * 20, "logo-3.png", "logo", "a cat", "a logo of the dog"]
    assert reasons(texts, MatchSection(max_chars=60), "logo") == {
        "l": "text_too_short",
        "logo" * 20: "text_too_long",
        "logo-3.png": "file_name",
        "logo": "boilerplate",
        "a cat": "no_query",
    }


def test_filters_can_be_switched_off() -> None:
    """File names and boilerplate are kept, each by its own switch, if they contain a query."""
    texts = ["dog.jpg", "logo"]
    section = MatchSection(keep_file_names=True)
    assert reasons(texts, section, "dog", "logo") == {"logo": "boilerplate"}
    section = MatchSection(keep_boilerplate=True)
    assert reasons(texts, section, "dog", "logo") == {"dog.jpg": "file_name"}
    section = MatchSection(keep_file_names=True, keep_boilerplate=True)
    assert reasons(texts, section, "dog", "logo") == {}


def test_only_the_wanted_languages_are_kept() -> None:
    """What is matched in another language is rejected and says which; what is kept says so, too."""
    texts = [
        "a small dog is playing with a ball in the garden",
        "ein kleiner dog spielt im Garten mit einem Ball",
        "ein Vogel sitzt auf dem Baum",
    ]
    section = MatchSection(languages=["en"], language_min_score=0.3)
    sifted = sift(Matcher(pa.array(["dog"])), candidates(texts), section)
    assert sifted.matched["language"].to_pylist() == ["en"]
    assert sifted.matched["text"].to_pylist() == texts[:1]
    rows = sifted.rejected.to_pylist()
    assert [row["reason"] for row in rows] == ["language", "no_query"]
    assert rows[0]["detail"].startswith("de ")
    assert rows[1]["detail"] is None


def test_no_language_is_told_unless_it_is_asked_for() -> None:
    """Without languages in the recipe the column is empty."""
    matched = sift(Matcher(pa.array(["dog"])), candidates(["a dog"]), MatchSection()).matched
    assert matched["language"].to_pylist() == [None]
    assert matched.schema.equals(MATCHED)


def test_rows_stay_with_their_texts() -> None:
    """Matched rows have the normalised text and the ids that belong to them, in order."""
    texts = ["x", "A Dog", "logo", "hot dog", "nothing", "CAT and dog"]
    table = candidates(texts)
    sifted = sift(Matcher(pa.array(["dog", "hot dog", "cat"])), table, MatchSection())
    assert sifted.matched["text"].to_pylist() == ["A Dog", "hot dog", "CAT and dog"]
    assert sifted.matched["query_ids"].to_pylist() == [[0], [0, 1], [0, 2]]
    assert sifted.normalised.to_pylist() == [
        normalise(t) for t in sifted.matched["text"].to_pylist()
    ]
    uids = table["uid"].to_pylist()
    assert sifted.rejected["uid"].to_pylist() == [uids[0], uids[2], uids[4]]


def test_uses_are_written_only_where_repeats_are_limited(job: MatchJob) -> None:
    """The exchange file of uses is there if the section limits repeats, by bucket of the text."""
    assert len(matching.run(job).outputs) == 3
    section = msgspec.structs.replace(job.section, max_urls_per_text=5)
    done = matching.run(msgspec.structs.replace(job, section=section))
    assert [o.url for o in done.outputs] == [
        job.matched,
        job.matched + ".index",
        job.uses,
        job.uses + ".index",
        job.rejections,
    ]
    found = [exchange.gather([job.uses], bucket) for bucket in range(4)]
    assert sum(table.num_rows for table in found) == 2
    for number, table in enumerate(found):
        assert table.schema.equals(repeats.USES)
        assert (repeats.bucket_of(table, 4) == number).all()


def test_an_error_in_the_middle_publishes_nothing(
    job: MatchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a batch cannot be read after others were written, no output appears."""

    def broken(url: str) -> Iterator[pa.Table]:
        yield candidates(["a dog", "nothing"])
        raise StorageError("damaged", where=url)

    monkeypatch.setattr(storage, "read_batches", broken)
    with pytest.raises(StorageError, match="damaged"):
        matching.run(job)
    assert not [p for p in Path(job.matched).parent.iterdir() if p.name[0] in ".mr"]


def test_many_batches_of_rejections_make_few_row_groups(
    job: MatchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rejections are written as soon as there are enough for a row group, all in order."""
    monkeypatch.setattr(matching, "_GROUP_ROWS", 3)
    matching.run(job)
    with storage.open_arrow(job.rejections) as file:
        parquet = pa.parquet.ParquetFile(file)
        groups = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    assert groups == [3, 1]
