"""What must not be asked for or kept: the recipe's block-lists, and what was removed from the run.

A list is a file of lines, local or remote, ``.gz`` or not; blank lines, and those that begin with
``#``, are nothing. A refusal names file and line, never the entry: a report may be shown to people
who must not learn what is listed.

Asking takes 10 us for a URL (20 us where there are patterns), 6 us for a picture; comparing with
100,000 perceptual hashes by distance takes 100 us more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from wit_builder import storage
from wit_builder.recipe import digest
from wit_builder.sections import BlockSection
from wit_builder.web import listings
from wit_builder.web.answer import Refusal
from wit_builder.web.listings import Listed
from wit_builder.web.urls import NORMAL, BadUrlError, normalise

_Question = tuple[str, Callable[[Listed], int | str | None]]
"""The kind of a list, and who looks something up in it: a line's number, or nothing."""


class Blocklists:
    """Says of a URL, a pair or a picture why it must not be asked for or kept.

    True where anything is listed.

    Args:
        listed: what is asked, in this order.
    """

    def __init__(self, listed: Sequence[Listed] = ()) -> None:
        self._listed = [part for part in listed if len(part)]
        self.identity = digest([part.identity for part in self._listed]) if self._listed else ""
        """Changes when any of it does; empty where nothing is listed."""

    @classmethod
    def load(cls, section: BlockSection, removed: str | None = None) -> Blocklists:
        """Return what a recipe's section lists, and a run's table of removals.

        The last that was loaded is kept for the process, until one of its files changes.

        Args:
            section: the recipe's.
            removed: place of a table (``tables.REMOVED``); None if there is none.

        Raises:
            RecipeError: a line is not what its list is of; names file and line.
            StorageError: a file cannot be read, or a pattern matches none.
        """
        files = [*listings.files_of(section), *([removed] if removed else [])]
        key = digest([section, removed, [(url, storage.identity(url)) for url in files]])
        if key not in _last:
            taken = [listings.removed(removed)] if removed else []
            loaded = cls([*taken, listings.named(section)])
            _last.clear()
            _last[key] = loaded
        return _last[key]

    def __bool__(self) -> bool:
        return bool(self._listed)

    def of_url(self, url: str) -> Refusal | None:
        """Return why a URL must not be asked for; None if it is not listed, or is no URL.

        The URL need not be in normal form.
        """
        if not self._listed:
            return None
        try:
            normal = url if NORMAL.fullmatch(url) else normalise(url)
        except BadUrlError:  # which the gate refuses for what it is
            return None
        host, named_by = listings.host_of(normal), listings.digest_of(normal)
        return self._first(
            ("hosts", lambda listed: _of_host(listed, host)),
            ("urls", lambda listed: listed.urls.find(named_by)),
            ("urls", lambda listed: listed.patterns.find(normal)),
        )

    def of_uid(self, uid: bytes) -> Refusal | None:
        """Return why a pair must not be kept; None if it is not listed."""
        return self._first(("uid", lambda listed: listed.uid.find(uid)))

    def of_picture(self, md5: str | None, sha256: str | None, phash: str | None) -> Refusal | None:
        """Return why a picture must not be kept; None if none of its digests is listed.

        Args:
            md5: hex digest of the body as downloaded, as in ``tables.IMAGES``; so are the others.
            sha256: likewise.
            phash: its perceptual hash.
        """
        return self._first(
            ("md5", lambda listed: md5 and listed.md5.find(bytes.fromhex(md5))),
            ("sha256", lambda listed: sha256 and listed.sha256.find(bytes.fromhex(sha256))),
            ("phash", lambda listed: phash and _of_phash(listed, bytes.fromhex(phash))),
        )

    def _first(
        self, *questions: tuple[str, Callable[[Listed], int | str | None]]
    ) -> Refusal | None:
        for listed in self._listed:
            for kind, ask in questions:
                number = ask(listed)
                if isinstance(number, int):
                    return Refusal(listed.reason, f"{kind}: {listed.place(number)}")
        return None


_last: dict[str, Blocklists] = {}

NOTHING_BLOCKED = Blocklists()
"""Lists without an entry."""


def _of_host(listed: Listed, host: str) -> int | None:
    if not listed.hosts:
        return None
    return next((listed.hosts[name] for name in _above(host) if name in listed.hosts), None)


def _above(host: str) -> Iterator[str]:
    """Yield a host and all names that it is below."""
    yield host
    while (dot := host.find(".")) >= 0:
        host = host[dot + 1 :]
        yield host


def _of_phash(listed: Listed, value: bytes) -> int | None:
    return listed.phash.nearest(value, listed.phash_distance)
