"""The list of what is to be removed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from wit_builder import storage
from wit_builder.errors import GoneError, RecipeError
from wit_builder.removal import wanted
from wit_builder.removal.wanted import Entry, entry


def sha256(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


@pytest.mark.parametrize(
    ("by", "value", "expected"),
    [
        ("uid", "AB" * 16, "ab" * 16),
        ("md5", " " + "0f" * 16 + "\n", "0f" * 16),
        ("sha256", "A" * 64, "a" * 64),
        ("phash", "0123456789ABCDEF", "0123456789abcdef"),
        ("url", "HTTP://A.example:80/x y#z", sha256("http://a.example/x%20y")),
        ("url", "wds:cc/00001.tar/000000007", sha256("wds:cc/00001.tar/000000007")),
        ("host", "*.Example.org.", "example.org"),
        ("host", "bücher.example", "xn--bcher-kva.example"),
        ("host", "[2001:DB8::1]", "2001:db8::1"),
        ("host", "192.0.2.7", "192.0.2.7"),
    ],
)
def test_an_entry_is_listed_as_tables_have_it(by: str, value: str, expected: str) -> None:
    """Hex in lower case, hosts as in normal URLs; of a URL only its digest."""
    assert entry(by, value) == Entry(by, expected)


@pytest.mark.parametrize(
    ("by", "value"),
    [
        ("uid", "ab"),
        ("md5", "g" * 32),
        ("sha256", "a" * 63),
        ("phash", ""),
        ("url", "ftp://a.example/x"),
        ("url", "a.example/x"),
        ("url", "http://me:secret@a.example/"),
        ("host", "com"),
        ("host", "a.example/x"),
        ("host", "http://a.example"),
        ("host", ""),
        ("name", "x"),
    ],
)
def test_what_cannot_be_listed_is_refused(by: str, value: str) -> None:
    """A wrong digest, a URL that no pair can have, half the web; passwords are not repeated."""
    with pytest.raises(RecipeError) as error:
        entry(by, value)
    assert "secret" not in str(error.value)


def test_a_list_has_each_entry_once_in_order(tmp_path: Path) -> None:
    """However often and in whatever order they came."""
    root = str(tmp_path)
    first, second = entry("host", "b.example"), entry("host", "a.example")
    wanted.add(root, [first])
    wanted.add(root, [second, first, entry("uid", "0" * 32)])
    assert wanted.read(root).to_pylist() == [
        {"by": "host", "value": "a.example"},
        {"by": "host", "value": "b.example"},
        {"by": "uid", "value": "0" * 32},
    ]


def test_a_list_knows_whether_it_is_finished(tmp_path: Path) -> None:
    """Not from the first entry on, until somebody says so; a further entry begins it anew."""
    root = str(tmp_path)
    assert not wanted.is_unfinished(root)
    wanted.add(root, [entry("host", "a.example")])
    assert wanted.is_unfinished(root)
    wanted.finish(root)
    assert not wanted.is_unfinished(root)
    assert len(wanted.read(root)) == 1
    wanted.add(root, [])
    assert wanted.is_unfinished(root)


def test_a_file_has_an_entry_a_line(tmp_path: Path) -> None:
    """Blank lines and comments do not count; a wrong line is named by its number."""
    place = tmp_path / "list.txt"
    place.write_text("\ufeff# wanted\nhost a.example\n\n url  http://b.example \n")
    found = [entry("host", "a.example"), entry("url", "http://b.example/")]
    assert [asked.entry for asked in wanted.read_list(str(place))] == found
    assert [asked.said.split(": ")[1] for asked in wanted.read_list(str(place))] == [
        "host a.example",
        "url http://b.example",
    ]
    place.write_text("host a.example\nsha256 abc\n")
    with pytest.raises(RecipeError, match=r"list\.txt line 2"):
        list(wanted.read_list(str(place)))
    assert not storage.exists(str(tmp_path / wanted.FILE))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("phash a493cedb382738c6 # why", ("phash", "a493cedb382738c6")),
        ("host\ta.example\t#why", ("host", "a.example")),
        ("url http://a.example/x #why", ("url", "http://a.example/x")),
        ("url http://a.example/x#y", ("url", "http://a.example/x#y")),
        ("  # host a.example", None),
    ],
)
def test_a_comment_may_follow_a_value(
    tmp_path: Path, line: str, expected: tuple[str, str] | None
) -> None:
    """After white space; a fragment of a URL is none."""
    (tmp_path / "list.txt").write_text(line)
    found = [asked.entry for asked in wanted.read_list(str(tmp_path / "list.txt"))]
    assert found == ([entry(*expected)] if expected else [])


def test_a_list_that_is_not_there_is_an_options_fault(tmp_path: Path) -> None:
    """No stage makes it."""
    with pytest.raises(GoneError, match=r"nowhere\.txt.*--list"):
        list(wanted.read_list(str(tmp_path / "nowhere.txt")))


def test_long_and_unprintable_values_are_shown_cut_and_escaped() -> None:
    """What a terminal would obey, or what fills it, is not repeated as it is."""
    assert wanted.asked("url", f"http://a.example/{'x' * 99}").said.endswith("xxx...")
    assert "\x1b" not in wanted.asked("url", "http://a.example/\x1b[2J").said
