"""What lists name: hosts, URLs, digests; read from files of lines, or from the run's removals.

Ten million sha256 take 200 MB (700 MB while they are read) and 15 s to read, once a process.
"""

from __future__ import annotations

import binascii
import bisect
import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, cast

import numpy as np
import xxhash

from wit_builder import storage
from wit_builder.errors import GoneError, RecipeError, StorageError, WitError
from wit_builder.sections import BlockSection
from wit_builder.tables import Reason
from wit_builder.web.addresses import is_literal
from wit_builder.web.digests import KEPT_BYTES, U8, U32, Digests, PictureHashes
from wit_builder.web.patterns import Patterns, fault
from wit_builder.web.urls import NORMAL, BadUrlError, normalise

_CHUNK_BYTES = 4 << 20
_COMMENT = b"#"
_NORMAL_HOST = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*\.[a-z]{2,}")
_BOM = b"\xef\xbb\xbf"
_FILES = ("hosts", "urls", "md5", "sha256", "phash")
_REMOVED_BY = ("host", "url", "uid", "md5", "sha256", "phash")


class _BadLineError(ValueError):
    """A line that is not what its list is of: its number, and what is wrong."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, what)
        self.number, self.what = number, what


class _Hosts:
    """Collects host names; 150 bytes each."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def add(self, entries: Sequence[bytes], numbers: Sequence[int]) -> None:
        for number, entry in zip(numbers, entries, strict=True):
            self.found.setdefault(_host(_text(entry, number), number), number)


class _Urls:
    """Collects URLs, kept as the beginnings of their sha256, and patterns."""

    def __init__(self) -> None:
        self.exact = _Hex("urls", 32)
        self.patterns: list[str] = []
        self.pattern_numbers: list[int] = []

    def add(self, entries: Sequence[bytes], numbers: Sequence[int]) -> None:
        exact, at = list[bytes](), list[int]()
        for number, entry in zip(numbers, entries, strict=True):
            text = _text(entry, number)
            if "*" in text:
                self._add_pattern(text, number)
            else:
                exact.append(_url_digest(text, number))
                at.append(number)
        self.exact.take(b"".join(exact), at)

    def _add_pattern(self, text: str, number: int) -> None:
        scheme, slashes, rest = text.partition("://")
        host, slash, path = rest.partition("/")
        # what of a URL ignores case is in lower case in its normal form
        pattern = f"{scheme}{slashes}{host}".lower() + slash + path if slashes else text
        if what := fault(pattern):
            raise _BadLineError(number, what)
        self.patterns.append(pattern)
        self.pattern_numbers.append(number)


class _Hex:
    """Collects hexadecimal digests of some bytes; of long ones only ``KEPT_BYTES`` are kept."""

    def __init__(self, kind: str, size: int) -> None:
        self._kind, self._size = kind, size
        self.rows: list[U8] = []
        self.numbers: list[U32] = []

    def add(self, entries: Sequence[bytes], numbers: Sequence[int]) -> None:
        if {len(entry) for entry in entries} - {2 * self._size}:
            raise self._bad(entries, numbers)
        try:
            raw = binascii.unhexlify(b"".join(entries))
        except binascii.Error as error:
            raise self._bad(entries, numbers) from error
        self.take(raw, numbers)

    def take(self, raw: bytes, numbers: Sequence[int]) -> None:
        rows = np.frombuffer(raw, np.uint8).reshape(-1, self._size)
        self.rows.append(np.ascontiguousarray(rows[:, :KEPT_BYTES]))
        self.numbers.append(np.array(numbers, np.uint32))

    def _bad(self, entries: Sequence[bytes], numbers: Sequence[int]) -> _BadLineError:
        """Return the first line that is wrong; looked for only where one is."""
        digits = b"0123456789abcdefABCDEF"
        wrong = (len(entry) != 2 * self._size or entry.strip(digits) for entry in entries)
        number = next(n for n, bad in zip(numbers, wrong, strict=True) if bad)
        return _BadLineError(number, f"no {self._kind} of {2 * self._size} hex digits")


def named(section: BlockSection) -> Listed:
    """Return what the lists of a recipe's section name.

    Raises:
        RecipeError: a line is not what its list is of; names file and line.
        StorageError: a file cannot be read, or a pattern matches none.
    """
    reading = _Reading("line", RecipeError)
    for kind in _FILES:
        for url in files_of(section, kind):
            reading.add(kind, storage.name_of(url), _blocks(url))
    return reading.listed(Reason.BLOCKED, section.phash_distance)


def files_of(section: BlockSection, kind: str | None = None) -> list[str]:
    """Return the places of a section's files, or of those of one kind, in its order.

    Raises:
        StorageError: a file is not there, or a pattern matches none; names the key.
    """
    kinds = [kind] if kind else _FILES
    return [url for k in kinds for pattern in getattr(section, k) for url in _found(k, pattern)]


def _found(kind: str, pattern: str) -> list[str]:
    try:
        found = storage.glob(pattern)
    except StorageError as error:
        where = f"block.{kind}, {error.where}"
        raise StorageError(error.what, where=where, fix=error.fix) from error
    if found == [pattern] and not storage.exists(pattern):
        fix = f"correct block.{kind} of the recipe"
        raise GoneError("no such block-list", where=storage.redact(pattern), fix=fix)
    return found


def removed(url: str) -> Listed:
    """Return what a run's table of removals (``tables.REMOVED``) names.

    Raises:
        StorageError: it cannot be read, or a row is not what it says.
    """
    table = storage.read_parquet(url, ["by", "value"])
    rows = zip(table["by"].to_pylist(), table["value"].to_pylist(), strict=True)
    reading = _Reading("row", StorageError)
    found: dict[str, list[tuple[int, bytes]]] = {kind: [] for kind in _REMOVED_BY}
    for number, (by, value) in enumerate(rows):
        if by not in found:
            where = f"{storage.redact(url)} row {number + 1}"
            fix = "update wit-builder: a later version wrote it"
            raise StorageError(f"removed by {by!r}, which is unknown", where=where, fix=fix)
        found[by].append((number, value.encode()))
    reading.open(storage.name_of(url))
    for kind, values in found.items():
        reading.take(kind, [value for _, value in values], [number for number, _ in values])
    return reading.listed(Reason.REMOVED, 0)


def _blocks(url: str) -> Iterator[list[bytes]]:
    """Yield the lines of a file, decompressed if it ends in ``.gz``, many at a time."""
    rest, start = b"", _BOM
    with storage.open_read(url) as raw:
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if url.endswith(".gz") else raw)
        while chunk := _read(stream, url):
            *lines, rest = (rest + chunk.removeprefix(start)).split(b"\n")
            start = b""
            yield lines
    yield [rest] if rest else []


def _read(stream: IO[bytes], url: str) -> bytes:
    try:
        with storage.translated(url, "read"):
            return stream.read(_CHUNK_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(url) from error
    except StorageError as error:
        if isinstance(error.__cause__, gzip.BadGzipFile):
            raise _damaged(url) from error
        raise


def _damaged(url: str) -> RecipeError:
    return RecipeError(
        "a damaged gzip file", where=storage.redact(url), fix="download or compress it again"
    )


def host_of(url: str) -> str:
    """Return the host in a URL in normal form, without a final dot; of IPv6 without brackets."""
    authority = url.split("/", 3)[2]
    if authority.startswith("["):
        return authority[1 : authority.index("]")]
    return authority.partition(":")[0].rstrip(".")


def _text(entry: bytes, number: int) -> str:
    try:
        return entry.decode()
    except UnicodeDecodeError as error:
        raise _BadLineError(number, "a line that is not UTF-8") from error


def _host(text: str, number: int) -> str:
    """Return a host as it stands in URLs in normal form, without a final dot."""
    if _NORMAL_HOST.fullmatch(text):
        return text
    name = text.strip("[]") if is_literal(text) else text.rstrip(".").lower()
    try:
        host = host_of(normalise(f"http://{f'[{name}]' if ':' in name else name}/"))
    except BadUrlError as error:
        raise _BadLineError(number, "no host name") from error
    if not is_literal(host) and (host.rpartition(".")[2].isdigit() or set(name) & set(":/?#")):
        raise _BadLineError(number, "no host name")
    return host


def digest_of(url: str) -> bytes:
    """Return the sha256 of a URL in normal form: by it URLs are listed, so that lists tell none."""
    return hashlib.sha256(url.encode()).digest()


def _url_digest(text: str, number: int) -> bytes:
    try:
        return digest_of(text if NORMAL.fullmatch(text) else normalise(text))
    except BadUrlError as error:
        raise _BadLineError(number, f"no URL of a picture: {error}") from error


class _Places:
    """Numbers the lines of one list after the other, and knows them again."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._names: list[str] = []
        self._starts: list[int] = []

    def open(self, name: str, start: int) -> None:
        self._names.append(name)
        self._starts.append(start)

    def __call__(self, number: int) -> str:
        """Return where a line stands: file name and number, from 1."""
        at = bisect.bisect_right(self._starts, number) - 1
        return f"{self._names[at]} {self._word} {number - self._starts[at] + 1}"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What lists of one origin name, with the numbers of the lines that do.

    Attributes:
        reason: of what is named here.
        phash_distance: bits by which a picture's perceptual hash may differ from one named.
        place: tells where a line stands.
        identity: a digest of all that was read.
    """

    reason: Reason
    phash_distance: int
    place: Callable[[int], str]
    identity: str
    hosts: dict[str, int]
    urls: Digests
    patterns: Patterns
    uid: Digests
    md5: Digests
    sha256: Digests
    phash: PictureHashes

    def __len__(self) -> int:
        digests = sum(map(len, (self.urls, self.uid, self.md5, self.sha256)))
        return len(self.hosts) + digests + len(self.patterns) + len(self.phash)


class _Reading:
    """What was read so far of the lists of one origin."""

    def __init__(self, word: str, error: type[WitError]) -> None:
        self._places, self._error = _Places(word), error
        self._number = 0
        self._checksum = xxhash.xxh3_128()
        self._hosts, self._urls = _Hosts(), _Urls()
        sizes = {"uid": 16, "md5": 16, "sha256": 32, "phash": 8}
        self._hex = {kind: _Hex(kind, size) for kind, size in sizes.items()}
        self._takers: dict[str, Callable[[list[bytes], list[int]], None]] = {
            "hosts": self._hosts.add,
            "host": self._hosts.add,
            "urls": self._urls.add,
            "url": self._urls.exact.add,
            **{kind: found.add for kind, found in self._hex.items()},
        }

    def add(self, kind: str, name: str, blocks: Iterable[list[bytes]]) -> None:
        """Take the lines of a list of some kind; ``name`` is its file's."""
        self.open(name)
        for block in blocks:
            self.take(kind, block, range(self._number, self._number + len(block)))
            self._number += len(block)

    def open(self, name: str) -> None:
        """Begin a list; what is taken from here on stands in its file."""
        self._places.open(name, self._number)

    def take(self, kind: str, lines: list[bytes], numbers: Sequence[int]) -> None:
        """Take some lines, each with its number."""
        self._checksum.update(f"{kind}\0{len(lines)}\0".encode() + b"\n".join(lines))
        stripped = [line.strip() for line in lines]
        # 0.3 us a line in all, if they are digests
        kept = [i for i, line in enumerate(stripped) if line and not line.startswith(_COMMENT)]
        try:
            self._takers[kind]([stripped[i] for i in kept], [numbers[i] for i in kept])
        except _BadLineError as bad:
            where, fix = self._places(bad.number), "correct or remove it"
            raise self._error(bad.what, where=where, fix=fix) from bad

    def listed(self, reason: Reason, phash_distance: int) -> Listed:
        """Return all of it, fit to be asked."""
        self._checksum.update(f"{phash_distance}".encode())
        kept = {kind: (found.rows, found.numbers) for kind, found in self._hex.items()}
        return Listed(
            reason=reason,
            phash_distance=phash_distance,
            place=self._places,
            identity=self._checksum.hexdigest(),
            hosts=self._hosts.found,
            urls=Digests(self._urls.exact.rows, self._urls.exact.numbers),
            patterns=Patterns(self._urls.patterns, self._urls.pattern_numbers),
            uid=Digests(*kept["uid"]),
            md5=Digests(*kept["md5"]),
            sha256=Digests(*kept["sha256"]),
            phash=PictureHashes(*kept["phash"]),
        )
