from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import storage
from wit_builder.crawl import frontier, warc_record
from wit_builder.crawl.frontier import Row, Taken, Visit
from wit_builder.tables import VISITED

DATE = datetime(2024, 5, 1, 12, tzinfo=UTC)
ABOUT = {"software": "x"}


def row(url: str, **fields: Any) -> Row:
    return Row(
        **{"url": url, "kind": "page", "depth": 1, "asked_at": DATE, "final_url": url, **fields}
    )


def record(url: str) -> bytes:
    return warc_record.response(url, DATE, 200, [], b"body of " + url.encode())


def visit(folder: Path | str, number: int = 1, made_by: str = "x") -> Visit:
    return Visit(str(folder), number, made_by)


_TEXTS = st.lists(st.text(max_size=9), max_size=3)
_ROWS = st.builds(
    row,
    st.text(max_size=20),
    kind=st.sampled_from(["page", "sitemap", "robots"]),
    status=st.none() | st.integers(100, 599),
    etag=st.none() | st.text(max_size=5),
    reason=st.sampled_from([None, "moved"]),
    opt_outs=_TEXTS,
    without_text=st.integers(0, 9),
    hrefs=_TEXTS,
    links=_TEXTS,
)


@given(parts=st.lists(st.lists(_ROWS, max_size=4), max_size=3))
def test_what_is_published_is_found_again(
    parts: list[list[Row]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A row comes back as it was, by its kind and URL; the last one counts."""
    folder = tmp_path_factory.mktemp("a.test")
    writing = visit(folder)
    for part in parts:
        for made in part:
            writing.add(Taken(made))
        writing.publish(ABOUT)
    read = visit(folder)
    last = {(made.kind, made.url): made for part in parts for made in part}
    assert {key: read.row(*key) for key in last} == last
    assert read.row("page", "another") is None


def test_records_lie_beside_their_rows(tmp_path: Path) -> None:
    """A record is read back from its place; a part without one has no WARC file."""
    folder = tmp_path / "a.test"
    writing = visit(folder)
    writing.add(Taken(row("a")))
    writing.publish(ABOUT)
    for url in ("b", "c", "d"):
        writing.add(Taken(row(url), record(url) if url != "c" else None))
    writing.publish(ABOUT)
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.test-001-00000.parquet",
        "a.test-001-00001.parquet",
        "a.test-001-00001.warc.gz",
    ]
    read = visit(folder)
    rows = [read.row("page", url) for url in "abcd"]
    assert [read.record(found) for found in rows if found] == [None, record("b"), None, record("d")]


def test_a_table_of_the_docs(tmp_path: Path) -> None:
    """A part has the columns that ``tables.VISITED`` documents."""
    writing = visit(tmp_path / "a.test")
    writing.add(Taken(row("a")))
    writing.publish(ABOUT)
    (place,) = (tmp_path / "a.test").iterdir()
    assert pq.read_schema(place).names == VISITED.names


def test_pages_that_somebody_moved_away(tmp_path: Path) -> None:
    """A row whose WARC file is not there any more says that there is no record."""
    folder = tmp_path / "a.test"
    writing = visit(folder)
    writing.add(Taken(row("a"), record("a")))
    writing.publish(ABOUT)
    (folder / "a.test-001-00000.warc.gz").unlink()
    found = visit(folder).row("page", "a")
    assert found is not None
    assert found.warc_length is None


def test_a_part_without_its_table_does_not_count(tmp_path: Path) -> None:
    """What a kill left between pages and table is removed, and its number is used again."""
    folder = tmp_path / "a.test"
    writing = visit(folder)
    for url in "ab":
        writing.add(Taken(row(url), record(url)))
        writing.publish(ABOUT)
    (folder / "a.test-001-00001.parquet").unlink()
    again = visit(folder)
    assert again.row("page", "b") is None
    assert not (folder / "a.test-001-00001.warc.gz").exists()
    again.add(Taken(row("c")))
    again.publish(ABOUT)
    assert visit(folder).row("page", "c") == row("c")


def test_parts_made_otherwise_do_not_count(tmp_path: Path) -> None:
    """Rows that depend on other settings are not taken; their files stay."""
    folder = tmp_path / "a.test"
    old = visit(folder)
    old.add(Taken(row("a")))
    old.publish(ABOUT)
    new = visit(folder, made_by="y")
    assert new.row("page", "a") is None
    new.add(Taken(row("b")))
    new.publish(ABOUT)
    assert len(list(folder.iterdir())) == 2
    assert visit(folder).row("page", "a") == row("a")


def test_visits_are_apart(tmp_path: Path) -> None:
    """Each visit has its rows; the one before is the latest with a smaller number."""
    folder = tmp_path / "a.test"
    assert frontier.last_before(str(folder), 5) is None
    for number in (1, 3, 12):
        writing = visit(folder, number)
        writing.add(Taken(row(f"in {number}")))
        writing.publish(ABOUT)
    assert visit(folder, 1).row("page", "in 12") is None
    assert [frontier.last_before(str(folder), n) for n in (1, 2, 3, 4, 99)] == [None, 1, 1, 3, 12]
    visit(folder, 12).forget()
    assert frontier.last_before(str(folder), 99) == 3


def test_a_part_is_due_by_time_or_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is due so long after its first row, or at once when it is large; never when empty."""
    monkeypatch.setattr(frontier, "_PART_BYTES", 10_000)
    writing = visit(tmp_path / "a.test")
    assert writing.due_in_s(60.0) is None
    writing.add(Taken(row("a")))
    due_in_s = writing.due_in_s(60.0)
    assert due_in_s is not None
    assert 0 < due_in_s <= 60
    writing.add(Taken(row("b"), b"x" * 10_000))
    assert writing.due_in_s(60.0) == 0
    writing.publish(ABOUT)
    assert writing.due_in_s(60.0) is None


def test_few_parts_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading in the crawl's order reads each part once; no more than a few are in memory."""
    folder = tmp_path / "a.test"
    writing = visit(folder)
    for number in range(10):
        writing.add(Taken(row(f"{number}a")))
        writing.add(Taken(row(f"{number}b")))
        writing.publish(ABOUT)
    reading = visit(folder)
    whole: list[str] = []
    read_parquet = storage.read_parquet

    def counted(url: str) -> pa.Table:
        whole.append(url)
        return read_parquet(url)

    monkeypatch.setattr(storage, "read_parquet", counted)
    for number in range(10):
        assert reading.row("page", f"{number}a")
        assert reading.row("page", f"{number}b")
    assert len(whole) == 10
    assert len(reading._held) == 4


@pytest.mark.s3
def test_in_a_bucket(s3_folder: str) -> None:
    """A bucket will do."""
    folder = storage.join(s3_folder, "a.test")
    writing = visit(folder)
    writing.add(Taken(row("a"), record("a")))
    writing.publish(ABOUT)
    read = visit(folder)
    found = read.row("page", "a")
    assert found is not None
    assert read.record(found) == record("a")
    assert frontier.last_before(folder, 2) == 1


def test_the_folder_of_an_ipv6_address() -> None:
    """It has no colons, which file systems and URLs take for something else."""
    assert frontier.folder_of("ROOT/sites", "2001:db8::1") == "ROOT/sites/2001-db8--1"
