"""One query's story."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import exchange, storage, tables
from wit_builder.errors import QueryListError, StorageError
from wit_builder.report import build, fates, show

from .conftest import HOSTILE, make_web, write_run


@pytest.fixture(scope="module")
def root(job):
    """A run with its report."""
    build.run(job)
    return job.root


def test_a_story_has_counts_and_pairs_of_every_fate(root, web):
    """The most matched query has the balance table's figures, and kept, dead and unasked pairs."""
    story = show.tell(root, "Query  0000!")
    assert story.query == "query 0000"
    assert story.status == "full"
    assert story.counts["kept"] == web.cap
    assert story.counts["matched"] == len(web.containing(0))
    fates = [s.fate for s in story.samples]
    assert fates[:3] == ["kept"] * 3
    assert {"kept", "dead", "never asked for"} <= set(fates)
    assert all(s.why for s in story.samples if s.fate != "never asked for")


def test_every_sample_contains_the_query_and_had_that_fate(root, web):
    """A sample's fate is what really became of the pair."""
    for sample in show.tell(root, "query 0003", samples_per_fate=100).samples:
        pair = int(sample.url.rsplit("/", 1)[1].removesuffix(".jpg"))
        assert 3 in web.query_ids[pair]
        expected = "kept" if pair in web.kept_by else web.outcome.get(pair, "never asked for")
        assert sample.fate == {"alive": "spare"}.get(expected, expected)


def test_kept_pairs_name_their_shard_key(root, web):
    """The key under which a kept pair stands in the shards is given."""
    kept = [s for s in show.tell(root, "query 0000").samples if s.fate == "kept"]
    first = next(p for p in web.kept_by if 0 in web.query_ids[p])
    assert kept[0].why == f"shard key {list(web.kept_by).index(first):09}"


def test_rows_are_safe_to_print(root):
    """Rows show markup as written and hold no control characters."""
    rows = show.explain(root, HOSTILE)
    assert ("query", HOSTILE) in rows
    assert all(text.isprintable() for row in rows for text in row)
    assert show.printable("red\x1b[2J\u202eevil\n") == "red\ufffd[2J\ufffdevil\ufffd"


def test_an_unknown_query_is_refused_with_near_ones(root):
    """The error names the query, the list, and queries that contain it."""
    with pytest.raises(
        QueryListError, match=r"no such query: 'query 000'.*did you mean 'query 00\d0'"
    ):
        show.tell(root, "query 000")
    with pytest.raises(QueryListError, match=rf"see what the list has: wit queries show {root}"):
        show.tell(root, "something else")


@pytest.mark.parametrize("typed", ["qeury 0000", "quary 0000", "Quer 0000", "kuery 0000"])
def test_a_misspelt_query_is_refused_with_what_was_meant(root, typed):
    """Letters swapped, replaced, left out or wrong at the beginning are seen through."""
    with pytest.raises(QueryListError, match=r"did you mean 'query 0000'"):
        show.tell(root, typed)


@pytest.mark.parametrize("typed", ["", "  ", "!!!", "\N{DOG FACE}"])
def test_a_query_without_letters_is_refused(root, typed):
    """Nobody can have meant a query by that, so none is suggested."""
    with pytest.raises(QueryListError, match=r"no letter or digit") as refused:
        show.tell(root, typed)
    assert "did you mean" not in str(refused.value)


def test_before_there_is_a_query_list(tmp_path):
    """The error is that of the list itself, and tells how to make one."""
    said = rf"there is no query list yet .*wit queries build RECIPE --out {tmp_path}"
    with pytest.raises(QueryListError, match=said):
        show.tell(str(tmp_path), "query")


def test_labels_are_short(root):
    """However long the reason of a loss, labels leave room for the text, and reasons are told."""
    rows = show.explain(root, "query 0000")
    assert max(len(label) for label, _ in rows) < 40
    reasons = {s.why for s in show.tell(root, "query 0000").samples if s.why}
    assert reasons <= {text for label, text in rows if not label}


def test_a_story_encodes(root):
    """A story can be printed as JSON and comes back the same."""
    story = show.tell(root, "query 0000", 50)
    assert msgspec.json.decode(msgspec.json.encode(story), type=show.Story) == story


@pytest.mark.parametrize("kind", ["matched", "kept"])
def test_a_report_older_than_the_run_says_so(tmp_path, web, kind):
    """A later generation, of new pairs or of all anew, makes a report one of the past."""
    build.run(write_run(tmp_path, web))
    assert "note" not in dict(show.explain(str(tmp_path), "query 0000"))
    for name in ("g1", "g2"):
        empty = (tables.MATCHED if kind == "matched" else tables.KEPT).empty_table()
        storage.write_parquet(f"{tmp_path}/{name}/{kind}/0.parquet", empty)
    assert dict(show.explain(str(tmp_path), "query 0000"))["note"] == (
        f"the report is older than generation g2: wit report {tmp_path} writes it anew"
    )


def test_before_the_report_the_tables_tell(root, web, tmp_path):
    """Without a report, figures and samples are the same; only the status is not known."""
    write_run(tmp_path, web)
    for query in ("query 0000", "query 0003", "query 0059"):
        told, so_far = show.tell(root, query, 50), show.tell(str(tmp_path), query, 50)
        assert so_far == msgspec.structs.replace(told, status="")
    assert (
        "status",
        "not known before the report; figures are those of the stages done so far",
    ) in (show.explain(str(tmp_path), "query 0000"))


def test_a_run_that_has_matched_only(tmp_path):
    """A run that drew nothing yet has one figure, and pairs that nobody was asked for."""
    write_run(tmp_path, make_web(40, 5, 3, 1))
    for folder in ("selected", "images", "kept", "shards", "rejected"):
        storage.remove(f"{tmp_path}/g0/{folder}")
    story = show.tell(str(tmp_path), "query 0000", 2)
    assert list(story.counts) == ["matched"]
    assert (story.drawn_per_round, [s.fate for s in story.samples]) == ([], ["never asked for"] * 2)


def test_a_run_that_has_drawn_only(tmp_path):
    """Before any answer, nothing is said of alive pairs, and drawn ones are not asked yet."""
    web = make_web(40, 5, 3, 1)
    write_run(tmp_path, web)
    for folder in ("images", "kept", "shards", "rejected"):
        storage.remove(f"{tmp_path}/g0/{folder}")
    story = show.tell(str(tmp_path), "query 0000", 50)
    assert list(story.counts) == ["matched", "drawn"]
    drawn = {p for p in web.rounds[0] if 0 in web.query_ids[p]}
    fates = [s.fate for s in story.samples]
    assert fates.count("drawn, not asked yet") == len(drawn)
    assert fates.count("never asked for") == len(web.containing(0)) - len(drawn)


def test_a_run_that_has_not_kept_yet(tmp_path):
    """As long as nothing is kept, alive pairs are not called spare for good."""
    write_run(tmp_path, make_web(40, 5, 3, 1))
    for folder in ("kept", "shards"):
        storage.remove(f"{tmp_path}/g0/{folder}")
    story = show.tell(str(tmp_path), "query 0000")
    assert list(story.counts) == ["matched", "drawn", "alive"]
    assert {s.why for s in story.samples if s.fate == "spare"} == {
        "alive; what is kept was not decided yet"
    }


def test_a_run_that_has_not_matched_is_refused(tmp_path):
    """With a query list and no more, the error says what to do."""
    write_run(tmp_path, make_web(5, 2, 3, 1))
    storage.remove(f"{tmp_path}/g0/matched")
    with pytest.raises(StorageError, match=r"nothing was matched.*g0/matched.*wit match"):
        show.tell(str(tmp_path), "query 0000")


def test_pairs_of_a_longer_list_are_refused(tmp_path):
    """Ids beyond the query list's end are named, with the table that has them."""
    write_run(tmp_path, make_web(40, 5, 3, 1))
    queries = f"{tmp_path}/queries/queries.parquet"
    storage.write_parquet(queries, storage.read_parquet(queries).slice(0, 2))
    with pytest.raises(
        StorageError, match=r"names query \d, but the query list ends at 1.*matched"
    ):
        show.tell(str(tmp_path), "query 0000")


def test_pairs_of_another_list_are_refused(tmp_path):
    """Where an id means another query than it did when pairs were matched, their texts show it."""
    write_run(tmp_path, make_web(40, 5, 3, 1))
    queries = f"{tmp_path}/queries/queries.parquet"
    table = storage.read_parquet(queries)
    table = table.set_column(1, table.schema.field(1), [["zebra", *table["query"].to_pylist()[1:]]])
    storage.write_parquet(queries, table)
    with pytest.raises(StorageError, match=r"should contain 'zebra' but does not: 'a picture of"):
        show.tell(str(tmp_path), "zebra")


def test_a_later_answer_replaces_an_earlier_one(tmp_path):
    """A pair that was deferred and then came is told as what came of it last."""
    web = make_web(60, 4, 10, 3)
    answers = {p: [r[p][1] for r in web.rounds if p in r] for p in range(60)}
    again = [p for p, seen in answers.items() if len(seen) > 1]
    assert again
    write_run(tmp_path, web)
    fates_of = {
        int(s.url.rsplit("/", 1)[1].removesuffix(".jpg")): s.fate
        for query in range(4)
        if web.containing(query)
        for s in show.tell(str(tmp_path), web.queries[query], 100).samples
    }
    for pair in again:
        expected = "kept" if pair in web.kept_by else answers[pair][-1]
        assert fates_of[pair] == {"alive": "spare"}.get(expected, expected)


@pytest.mark.parametrize("reported", [True, False])
def test_memory_is_bounded_by_looking_at_the_lowest(root, web, tmp_path, monkeypatch, reported):
    """Of a query with many pairs only those of lowest uid are looked at; the figures stay."""
    place = root if reported else str(tmp_path)
    if not reported:
        write_run(tmp_path, web)
    whole = show.tell(place, "query 0000", 1000)
    monkeypatch.setattr(fates, "LOOKED_AT", 40)
    read = storage.parquet_batches
    monkeypatch.setattr(storage, "parquet_batches", lambda url, columns, _=0: read(url, columns, 7))
    lowest = show.tell(place, "query 0000", 1000)
    assert lowest.counts == whole.counts
    urls = {f"http://host{p % 9}.example/{p}.jpg" for p in web.containing(0)[:40]}
    assert {s.url for s in lowest.samples} == urls
    assert [s for s in whole.samples if s.url in urls] == lowest.samples


def _exchanged(root: str, rows: list[dict[str, object]]) -> None:
    """Write matched pairs as they went to dedup, in three buckets."""
    whole = [dict.fromkeys(tables.MATCHED.names) | row for row in rows]
    table = pa.Table.from_pylist(whole, schema=tables.MATCHED)
    bucket = exchange.bucket_of(table["url"], 3)
    exchange.scatter(table, bucket, 3, f"{root}/g0/exchange/matched/wat-00000.arrow")


def test_pairs_dropped_in_dedup_are_told(tmp_path, monkeypatch):
    """Pairs that dedup dropped are samples, too, while there are files of them."""
    write_run(tmp_path, make_web(30, 3, 3, 1))
    came = storage.read_parquet(f"{tmp_path}/g0/matched/0.parquet").to_pylist()
    names = ("one", "two", "three")
    lost = [
        came[0]
        | {"uid": bytes(15) + bytes([200 + i]), "text": f"query 0000 {name}", "query_ids": [0]}
        for i, name in enumerate(names)
    ]
    _exchanged(str(tmp_path), [*came, *lost, came[0]])
    reasons = ["duplicate_url", "repeated_text"]
    dropped = [
        {"uid": row["uid"], "stage": "dedup", "reason": reason, "detail": None, "url": row["url"]}
        for row, reason in zip([*lost[:2], came[0]], [*reasons, "duplicate_url"], strict=True)
    ]
    storage.write_parquet(
        f"{tmp_path}/g0/rejected/dedup-0.parquet",
        pa.Table.from_pylist(dropped, schema=tables.REJECTIONS),
    )
    told = [s for s in show.tell(str(tmp_path), "query 0000", 10).samples if s.fate == "dropped"]
    assert [(s.text, s.why) for s in told] == [
        ("query 0000 one", "duplicate URL"),
        ("query 0000 two", "repeated text"),
    ]
    monkeypatch.setattr(fates, "LOOKED_AT", 5)  # whose uids are lower than those
    lowest = show.tell(str(tmp_path), "query 0000", 10)
    assert [s.fate for s in lowest.samples].count("dropped") == 0


def test_what_the_loop_dropped_is_told(tmp_path):
    """An alive pair whose picture another one has is dropped, and says why."""
    web = make_web(30, 3, 3, 1)
    spare = next(iter(web.kept_by))
    del web.kept_by[spare]
    write_run(tmp_path, web)
    row = {"uid": spare.to_bytes(16, "big"), "stage": "dedup", "reason": "duplicate_image"}
    whole = [dict.fromkeys(tables.REJECTIONS.names) | row]
    table = pa.Table.from_pylist(whole, schema=tables.REJECTIONS)
    storage.write_parquet(f"{tmp_path}/g0/rejected/keep-0.parquet", table)
    query = web.queries[web.query_ids[spare][0]]
    told = [s for s in show.tell(str(tmp_path), query, 50).samples if s.fate == "dropped"]
    assert [(s.url, s.why) for s in told] == [
        (f"http://host{spare % 9}.example/{spare}.jpg", "duplicate image")
    ]


@given(st.lists(st.sets(st.integers(0, 9))), st.integers(0, 9), st.data())
def test_rows_that_have_a_query(lists, query, data):
    """The rows found are those whose list has the query, in any slice of a column."""
    start = data.draw(st.integers(0, len(lists)))
    column = pa.array([sorted(ids) for ids in lists], pa.list_(pa.int32())).slice(start)
    expected = [row for row, ids in enumerate(lists[start:]) if query in ids]
    assert fates.Query(query, 10).rows(column, "").tolist() == expected
