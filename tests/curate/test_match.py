from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import exchange, storage
from wit_builder.curate import match
from wit_builder.curate.match import Matcher, MatchJob
from wit_builder.errors import StorageError
from wit_builder.hashing import pair_uid
from wit_builder.sections import MatchSection
from wit_builder.tables import CANDIDATES, MATCHED, REJECTIONS
from wit_builder.text import normalise

# Few words and many separators, so that queries overlap, nest and repeat often.
WORDS = st.sampled_from(["a", "b", "ab", "été", "東", "ß", "ﬁ", "\u0131", "9", "A", "İ"])
SEPARATORS = st.sampled_from([" ", "  ", "-", "(", "'", "\u00a0", "\n", ""])
PHRASE = st.lists(st.tuples(WORDS, SEPARATORS), max_size=9).map(
    lambda p: "".join(w + s for w, s in p)
)
TEXT = st.one_of(PHRASE, st.text(max_size=30))


def naive(queries: list[str], texts: list[str]) -> list[list[int]]:
    """Token by token, as the documentation says it."""
    wanted: dict[tuple[str, ...], int] = {}
    for i, query in enumerate(queries):
        wanted.setdefault(tuple(normalise(query).split()), i)
    found = []
    for text in texts:
        tokens = normalise(text).split()
        spans = {
            tuple(tokens[i:j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1)
        }
        found.append(sorted(wanted[s] for s in spans if s in wanted))
    return found


@given(st.lists(TEXT, max_size=12), st.lists(TEXT, max_size=8))
def test_equals_a_naive_token_search(queries: list[str], texts: list[str]) -> None:
    """On any Unicode queries and texts the matcher finds what a naive token search finds."""
    found = Matcher(pa.array(queries, pa.string())).match(pa.array(texts, pa.string()))
    assert found.to_pylist() == naive(queries, texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(dog)", ["dog"]),
        ("A trip to Paris, Texas!", ["paris", "Paris, Texas"]),
        ("category", []),
        ("hot dog dog", ["dog", "hot dog"]),
        ("new york new", ["new york"]),
        ("New York City Hall", ["new york", "new york city", "city hall"]),
        ("", []),
        ("DOG", ["dog"]),
    ],
)
def test_whole_tokens(text: str, expected: list[str]) -> None:
    """A query matches where its tokens stand in the text as consecutive whole tokens."""
    queries = [
        "dog",
        "cat",
        "paris",
        "Paris, Texas",
        "hot dog",
        "new york",
        "new york city",
        "city hall",
        "york new jersey",
        "",
    ]
    (found,) = Matcher(pa.array(queries)).match(pa.array([text])).to_pylist()
    assert [queries[i] for i in found] == expected


def test_a_slice_is_matched_as_a_column_of_its_own() -> None:
    """A sliced array gives the matches of its own rows."""
    matcher = Matcher(pa.array(["x", "one", "two"]).slice(1))
    texts = pa.array(["two", "one two", "one"]).slice(1)
    assert matcher.match(texts).to_pylist() == [[0, 1], [0]]


def test_many_matches_in_one_text() -> None:
    """A text with more matches than any estimate gives all of them, sorted, each once."""
    words = [f"w{i}" for i in range(1000)]
    text = " ".join(words[::-1] * 2)
    (found,) = Matcher(pa.array(words)).match(pa.array([text])).to_pylist()
    assert found == list(range(1000))


def test_type_is_a_list_of_int32() -> None:
    """The result has the type of ``query_ids`` even where nothing matched."""
    assert Matcher(pa.array([], pa.string())).match(pa.array(["a"])).type == pa.list_(
        pa.field("element", pa.int32(), nullable=False)
    )


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
        rejections=str(tmp_path / "r.parquet"),
    )


def test_run_scatters_what_matches_and_rejects_the_rest(job: MatchJob) -> None:
    """Every candidate is either matched, in its URL's bucket, or rejected with a reason."""
    done = match.run(job)
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
    assert match.run(job) == match.run(job)


def test_a_new_query_list_is_not_mistaken_for_the_last(job: MatchJob) -> None:
    """A worker that keeps its matcher takes the new list when its identity changed."""
    match.run(job)
    storage.write_parquet(job.queries, pa.table({"query": ["bird"]}))
    done = match.run(msgspec.structs.replace(job, queries_identity="new"))
    assert done.counts["matched"] == 1


def test_no_candidates(job: MatchJob) -> None:
    """A unit without candidates publishes empty tables."""
    with pa.ipc.new_file(job.candidates, CANDIDATES):
        pass
    done = match.run(job)
    assert done.counts == {"candidates": 0, "matched": 0, "matches": 0}
    assert exchange.gather([job.matched], 0).num_rows == 0


def test_a_damaged_candidates_file_is_an_error(job: MatchJob) -> None:
    """A candidates file that is not Arrow is an error that names it and the fix."""
    Path(job.candidates).write_bytes(b"not arrow")
    with pytest.raises(StorageError, match=r"not a readable Arrow or parquet file.*c\.arrow"):
        match.run(job)
