"""One query's story."""

from __future__ import annotations

import pytest

from wit_builder.errors import QueryListError, StorageError
from wit_builder.report import build, show

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
        QueryListError, match=r"no such query: 'query 000'.*did you mean 'query 0000'"
    ):
        show.tell(root, "query 000")
    with pytest.raises(QueryListError, match="no such query: '!!!'"):
        show.tell(root, "!!!")


def test_a_run_without_report_is_refused(tmp_path):
    """Before the report there is no story, and the error names the missing file."""
    write_run(tmp_path, make_web(5, 2, 3, 1))
    with pytest.raises(StorageError, match=r"summary\.json"):
        show.tell(str(tmp_path), "query 0000")
