"""What is listed is refused, by file and line, and nothing else is."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.errors import RecipeError, StorageError
from wit_builder.sections import BlockSection
from wit_builder.tables import REMOVED, Reason
from wit_builder.web.answer import Refusal
from wit_builder.web.blocklists import NOTHING_BLOCKED, Blocklists
from wit_builder.web.digests import PictureHashes
from wit_builder.web.patterns import Patterns, matches

MD5, SHA256, PHASH = "0a" * 16, "0b" * 32, "00000000000000ff"


@pytest.fixture
def lists_of(tmp_path: Path):
    """Load lists of lines: ``lists_of(hosts="a.test", md5=...)``."""

    def load(*, removed: str | None = None, phash_distance: int = 0, **lists: str) -> Blocklists:
        for kind, lines in lists.items():
            (tmp_path / f"{kind}.txt").write_bytes(lines.encode())
        files = {kind: [str(tmp_path / f"{kind}.txt")] for kind in lists}
        return Blocklists.load(BlockSection(phash_distance=phash_distance, **files), removed)

    return load


def removals(folder: Path, *rows: tuple[str, str]) -> str:
    place = folder / "removed.parquet"
    table = pa.table([[by for by, _ in rows], [value for _, value in rows]], schema=REMOVED)
    pq.write_table(table, place)
    return str(place)


@pytest.mark.parametrize(
    ("entry", "url", "refused"),
    [
        ("example.org", "https://example.org/a.jpg", True),
        ("example.org", "https://example.org", True),
        ("EXAMPLE.org.", "http://example.org:8080/", True),
        ("example.org", "http://EXAMPLE.ORG./a.jpg", True),
        ("example.org", "https://img.cdn.example.org/a.jpg?x=1", True),
        ("example.org", "https://notexample.org/a.jpg", False),
        ("example.org", "https://example.org.test/a.jpg", False),
        ("img.example.org", "https://example.org/a.jpg", False),
        ("bücher.example", "https://xn--bcher-kva.example/a.jpg", True),
        ("xn--bcher-kva.example", "https://www.bücher.example/a.jpg", True),
        ("192.0.2.7", "http://192.0.2.7/a.jpg", True),
        ("2001:db8::1", "http://[2001:db8:0:0::1]:81/a.jpg", True),
        ("[2001:db8::1]", "http://[2001:db8::1]/a.jpg", True),
    ],
)
def test_a_host_stands_for_itself_and_all_below(lists_of, entry: str, url: str, refused):
    """However host and URL are spelt."""
    expected = Refusal(Reason.BLOCKED, "hosts: hosts.txt line 1") if refused else None
    assert lists_of(hosts=entry).of_url(url) == expected


@pytest.mark.parametrize(
    ("entry", "url", "refused"),
    [
        ("http://a.test/x.jpg", "http://a.test/x.jpg", True),
        ("HTTP://A.test:80/%7ex y.jpg#top", "http://a.test/~x%20y.jpg", True),
        ("http://a.test/x.jpg", "http://a.test/x.jpg?", True),
        ("http://a.test/x.jpg", "https://a.test/x.jpg", False),
        ("http://a.test/x.jpg", "http://a.test/x.jpg2", False),
        ("*://a.test/private/*", "https://a.test/private/1.jpg", True),
        ("*://a.test/private/*", "https://a.test/public/1.jpg", False),
        ("https://*.A.test/*/ads/*", "https://img.a.test/1/ads/2.jpg", True),
        ("https://*.a.test/*/ads/*", "https://img.a.test/ads/2.jpg", False),
        ("*.gif", "http://b.test/x.gif", True),
        ("*.gif", "http://b.test/x.gif?y", False),
    ],
)
def test_a_url_is_refused_however_it_is_spelt(lists_of, entry: str, url: str, refused):
    """Listed URLs and those asked for are compared in normal form; a pattern is of a whole URL."""
    expected = Refusal(Reason.BLOCKED, "urls: urls.txt line 1") if refused else None
    assert lists_of(urls=entry).of_url(url) == expected


def test_a_picture_is_refused_by_any_of_its_digests(lists_of):
    """By md5, sha256 or perceptual hash, in upper case or lower, whichever of them is known."""
    lists = lists_of(md5=MD5.upper(), sha256="# known\n\n" + SHA256, phash=PHASH)
    other = "00" * 32
    assert lists.of_picture(MD5, other, None) == Refusal(Reason.BLOCKED, "md5: md5.txt line 1")
    by_sha256 = Refusal(Reason.BLOCKED, "sha256: sha256.txt line 3")
    assert lists.of_picture(other[:32], SHA256, PHASH) == by_sha256
    by_phash = Refusal(Reason.BLOCKED, "phash: phash.txt line 1")
    assert lists.of_picture(None, None, PHASH) == by_phash
    assert lists.of_picture(other[:32], other, "00000000000000fe") is None
    assert lists.of_picture(None, None, None) is None


@pytest.mark.parametrize(("distance", "refused"), [(0, False), (1, False), (2, True), (16, True)])
def test_a_look_alike_is_refused_within_the_distance(lists_of, distance: int, refused):
    """A hash two bits away is refused from a distance of two on."""
    lists = lists_of(phash=f"ffffffffffffffff\n{PHASH}", phash_distance=distance)
    found = lists.of_picture(None, None, "000000000000003f")
    assert (found is not None) == refused
    assert not found or found.detail == "phash: phash.txt line 2"


def test_what_was_removed_is_refused_as_removed(lists_of, tmp_path: Path):
    """By uid, URL, host or digest; before the recipe's own lists, and hashes by equality only."""
    named = hashlib.sha256(b"http://a.test/x.jpg").hexdigest()
    removed = removals(
        tmp_path,
        ("host", "c.test"),
        ("url", named),
        ("uid", "0c" * 16),
        ("sha256", SHA256),
        ("phash", PHASH),
    )
    lists = lists_of(removed=removed, hosts="c.test", phash_distance=8)
    told = [
        lists.of_url("http://www.c.test/"),
        lists.of_url("http://a.test/x.jpg#y"),
        lists.of_uid(bytes.fromhex("0c" * 16)),
        lists.of_picture(MD5, SHA256, None),
        lists.of_picture(MD5, None, PHASH),
    ]
    kinds = ["hosts", "urls", "uid", "sha256", "phash"]
    assert told == [
        Refusal(Reason.REMOVED, f"{kind}: removed.parquet row {row}")
        for row, kind in enumerate(kinds, 1)
    ]
    assert lists.of_url("http://a.test/y.jpg") is None
    assert lists.of_uid(bytes(16)) is None
    assert lists.of_picture(None, None, "00000000000000fe") is None


def test_nothing_listed_is_false_and_refuses_nothing(lists_of):
    """Comments and blank lines list nothing, and the identity of nothing is empty."""
    empty = lists_of(hosts="\ufeff# none\r\n\r\n   \n", urls="")
    for lists in (empty, NOTHING_BLOCKED):
        assert not lists
        assert lists.identity == ""
        assert lists.of_url("http://a.test/") is None
        assert lists.of_uid(bytes(16)) is None
        assert lists.of_picture(MD5, SHA256, PHASH) is None


def test_what_is_no_url_is_left_to_the_gate(lists_of):
    """The gate refuses it for what it is."""
    lists = lists_of(hosts="a.test")
    assert [lists.of_url(url) for url in ("file:///etc", "http://u:p@a.test/", "")] == [None] * 3


@pytest.mark.parametrize(
    ("kind", "line", "words"),
    [
        ("hosts", "*.a.test", "no host name"),
        ("hosts", "http://a.test/", "no host name"),
        ("hosts", "a.test # spam", "no host name"),
        ("hosts", "0.0.0.0 a.test", "no host name"),
        ("hosts", "3.4", "no host name"),
        ("hosts", "a.test:80", "no host name"),
        ("urls", "a.test/x.jpg", "no URL"),
        ("urls", "a.test/*", "begins with neither"),
        ("urls", "*", "4 characters in a row"),
        ("urls", "*ads*", "4 characters in a row"),
        ("urls", "https://a.test/ü*", "escape"),
        ("md5", SHA256, "no md5 of 32 hex digits"),
        ("md5", "z" * 32, "no md5 of 32 hex digits"),
        ("sha256", f"{SHA256}  x.jpg", "no sha256 of 64"),
        ("phash", "12", "no phash of 16"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_number(lists_of, kind: str, line: str, words: str):
    """The error says what is wrong and where, and does not repeat the line."""
    good = {"hosts": "b.test", "urls": "http://b.test/", "md5": MD5, "sha256": SHA256}
    with pytest.raises(RecipeError, match=rf"{words}.*\[{kind}\.txt line 4\]") as caught:
        lists_of(**{kind: f"# list\n{good.get(kind, PHASH)}\n\n{line}\n"})
    assert line not in str(caught.value)


def test_a_line_that_is_not_utf8_is_refused(tmp_path: Path):
    """Latin-1 would be another name."""
    (tmp_path / "hosts").write_bytes(b"a.test\nb\xfccher.test\n")
    with pytest.raises(RecipeError, match=r"not UTF-8 \[hosts line 2\]"):
        Blocklists.load(BlockSection(hosts=[str(tmp_path / "hosts")]))


def test_files_are_found_by_pattern_and_may_be_compressed(tmp_path: Path):
    """Every file that matches counts, and a refusal names the one that lists it."""
    (tmp_path / "1.txt").write_text("a.test\nb.test")
    (tmp_path / "2.txt.gz").write_bytes(gzip.compress(b"c.test\nd.test\n"))
    lists = Blocklists.load(BlockSection(hosts=[str(tmp_path / "*")]))
    details = [getattr(lists.of_url(f"http://{h}.test/"), "detail", None) for h in "abcde"]
    lines = ["1.txt line 1", "1.txt line 2", "2.txt.gz line 1", "2.txt.gz line 2"]
    assert details == [*(f"hosts: {line}" for line in lines), None]


def test_a_damaged_or_missing_file_is_named(tmp_path: Path):
    """A gzip file cut short or no gzip file at all, and a pattern that matches nothing."""
    section = BlockSection(hosts=[str(tmp_path / "h.gz")])
    for flaw in (gzip.compress(b"a.test\n" * 99)[:-9], b"a.test\n", gzip.compress(b"a")[:12]):
        (tmp_path / "h.gz").write_bytes(flaw)
        with pytest.raises(RecipeError, match=r"damaged gzip file \[.*h\.gz\]"):
            Blocklists.load(section)
    with pytest.raises(StorageError, match=r"nothing matches \[block\.md5, "):
        Blocklists.load(BlockSection(md5=[str(tmp_path / "*.md5")]))
    with pytest.raises(StorageError, match=r"h\.txt\] -> correct block\.urls of the recipe"):
        Blocklists.load(BlockSection(urls=[str(tmp_path / "h.txt")]))


def test_an_unreadable_removal_is_an_error(lists_of, tmp_path: Path):
    """An unknown kind and a value that is no digest, by row."""
    with pytest.raises(StorageError, match=r"'page'.*removed\.parquet row 2"):
        lists_of(removed=removals(tmp_path, ("host", "a.test"), ("page", "b")))
    with pytest.raises(StorageError, match=r"no md5.*removed\.parquet row 1"):
        lists_of(removed=removals(tmp_path, ("md5", "b")))


def test_lists_are_loaded_once_and_anew_when_they_change(lists_of, tmp_path: Path):
    """The same files give the same object; the identity tells contents apart, not places."""
    first = lists_of(hosts="a.test", md5=MD5)
    assert lists_of(md5=MD5) is not first
    again = lists_of(hosts="a.test", md5=MD5)
    assert again.identity == first.identity
    section = BlockSection(hosts=[str(tmp_path / "hosts.txt")])
    assert Blocklists.load(section) is Blocklists.load(section)
    identities = {
        first.identity,
        lists_of(hosts="b.test", md5=MD5).identity,
        lists_of(hosts="b.test").identity,
        lists_of(hosts="b.test", phash_distance=1).identity,
        lists_of(removed=removals(tmp_path, ("host", "b.test"))).identity,
    }
    assert len(identities) == 5


# --- on any input -----------------------------------------------------------

LETTERS = st.text("ab/*", max_size=12)


def glob_matches(pattern: str, text: str) -> bool:
    """Match as the definition of ``*`` has it, however slowly."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(glob_matches(pattern[1:], text[i:]) for i in range(len(text) + 1))
    return text[:1] == pattern[0] and glob_matches(pattern[1:], text[1:])


@given(LETTERS, st.text("ab/", max_size=12))
def test_a_pattern_matches_as_defined(pattern: str, text: str):
    """A star is any run of characters, the empty one included; without one, it is equality."""
    if "*" in pattern:
        assert matches(pattern, text) == glob_matches(pattern, text)


@given(st.lists(st.text("ab*", max_size=9)), st.text("ab", max_size=20))
def test_many_patterns_are_as_good_as_one_by_one(tails: list[str], path: str):
    """No pattern is missed for the characters it is kept under; the first that matches is told."""
    patterns = [f"*abab{tail}" for tail in tails]
    url = f"http://{path}"
    expected = (i for i, pattern in enumerate(patterns) if matches(pattern, url))
    assert Patterns(patterns, range(len(patterns))).find(url) == next(expected, None)


@given(
    st.lists(st.binary(min_size=8, max_size=8)),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 64),
)
def test_the_nearest_hash_is_found(hashes: list[bytes], value: bytes, within: int):
    """The one that differs in the fewest bits, the first of equals, if it is near enough."""
    import numpy as np

    def bits(other: bytes) -> int:
        return (int.from_bytes(value, "big") ^ int.from_bytes(other, "big")).bit_count()

    near = [(bits(h), i) for i, h in enumerate(hashes) if bits(h) <= within]
    rows = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 8)
    found = PictureHashes([rows], [np.arange(len(hashes), dtype=np.uint32)])
    assert found.nearest(value, within) == (min(near)[1] if near else None)


@given(st.sets(st.binary(min_size=1, max_size=2)), st.binary(min_size=1, max_size=2))
def test_a_digest_is_found_where_it_is_listed(listed: set[bytes], asked: bytes):
    """Digests that begin alike are told apart."""
    import numpy as np

    from wit_builder.web.digests import Digests

    whole = [entry.ljust(2, b"\0") * 8 for entry in sorted(listed)]
    rows = np.frombuffer(b"".join(whole), np.uint8).reshape(-1, 16)
    digests = Digests([rows], [np.arange(len(whole), dtype=np.uint32)])
    wanted = asked.ljust(2, b"\0") * 8
    assert digests.find(wanted) == (whole.index(wanted) if wanted in whole else None)
