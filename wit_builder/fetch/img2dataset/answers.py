"""From what img2dataset says of a URL to its pair's row, or to what must be asked for next."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace
from yarl import URL

from wit_builder.errors import StorageError
from wit_builder.fetch import outcome
from wit_builder.fetch.image import Unusable, prepare
from wit_builder.fetch.img2dataset.process import Result
from wit_builder.fetch.img2dataset.reasons import (
    NOT_DOWNLOADED,
    NOT_RESIZED,
    SUCCESS,
    reason_of,
)
from wit_builder.fetch.img2dataset.transport import Note
from wit_builder.fetch.img2dataset.turns import Ended, ended
from wit_builder.fetch.outcome import Maker
from wit_builder.fetch.store import Row
from wit_builder.sections import FetchSection
from wit_builder.tables import Outcome, Reason
from wit_builder.web.answer import KIND_OF, Answer, Kind, Refusal
from wit_builder.web.gate import Gate, domain_of, parse


class Ask(NamedTuple):
    """A URL to ask for: its row in the unit's selection, redirects that led to it, and tries."""

    position: int
    url: str
    redirects: int = 0
    tries: int = 0

    @property
    def domain(self) -> str:
        """The URL's registrable domain."""
        parsed = parse(self.url)
        return "" if isinstance(parsed, Refusal) else domain_of(parsed)


class Reader(msgspec.Struct, frozen=True):
    """Reads results.

    Attributes:
        fetch: limits of asking.
        maker: what a picture becomes, and what must not be kept.
        gate: which tells of a redirect's target whether it may be asked for at all.
    """

    fetch: FetchSection
    maker: Maker
    gate: Gate

    def read(self, ask: Ask, result: Result) -> Row | Ask:
        """Return the row of a pair; or what to ask for next: a redirect's target, or once more.

        Raises:
            StorageError: it could not ask, for a fault of this machine.
        """
        message = result.row["error_message"] or ""
        if result.row["status"] == NOT_DOWNLOADED:
            return self._failed(ask, message)
        if result.row["status"] != SUCCESS:
            return _not_resized(ask, message, result.note)
        return self._alive(ask, result)

    def _failed(self, ask: Ask, message: str) -> Row | Ask:
        end = ended(message) or Ended(reason_of(NOT_DOWNLOADED, message), message[:200])
        if end.fault:
            raise StorageError(
                f"this machine cannot ask any more: {end.fault}",
                where=f"fetch.concurrency = {self.fetch.concurrency}",
                fix="lower it, or raise the limit on open files (ulimit -n)",
            )
        if end.reason is None:
            return self._onward(ask, end)
        if end.reason not in KIND_OF:  # it is the picture's fault, not the web's
            columns = _columns(ask, None) | {"http_status": end.status}
            return Row(ask.position, columns | _dead(Refusal(end.reason, end.detail)))
        if KIND_OF[end.reason] is Kind.TRANSIENT and ask.tries < self.fetch.retries:
            return ask._replace(tries=ask.tries + 1)
        return self.refused(ask, Refusal(end.reason, end.detail), end.status, end.opt_outs)

    def _onward(self, ask: Ask, end: Ended) -> Row | Ask:
        """Return what to ask for next, or the row of a pair whose redirects lead too far."""
        target = _joined(ask.url, end.onward)
        if isinstance(target, Refusal):
            return self.refused(ask, target, end.status)
        most = self.fetch.max_redirects
        if ask.redirects >= most or str(target) == ask.url:
            refusal = Refusal(Reason.REDIRECT_LOOP, f"more than {most} redirects")
            return self.refused(ask, refusal, end.status)
        onward = ask._replace(url=str(target), redirects=ask.redirects + 1)
        if onward.domain == ask.domain:
            return onward
        refusal = self.gate.refusal_unasked(target) or Refusal(Reason.MOVED, final=True)
        return self.refused(onward, refusal, end.status)

    def refused(
        self,
        ask: Ask,
        refusal: Refusal,
        status: int | None = None,
        opt_outs: Sequence[str] = (),
    ) -> Row:
        """Return the row of a pair that was refused, by us or by its server."""
        url = _shown(ask.url)
        answer = Answer(url, status, ask.redirects, refusal=refusal, opt_outs=list(opt_outs))
        return outcome.asked(ask.position, answer, self.maker)

    def _alive(self, ask: Ask, result: Result) -> Row:
        """Return the row of a picture: decoded once more, for its perceptual hash, and upright."""
        assert result.picture is not None
        assert result.note is not None
        row, columns = result.row, _columns(ask, result.note)
        columns |= {name: row[name] for name in ("sha256", "original_width", "original_height")}
        made = prepare(result.picture, replace(self.maker.image, mode="no", enlarge=False))
        if isinstance(made, Unusable):
            return Row(ask.position, columns | _dead(Refusal(made.reason, made.detail)))
        columns |= {"width": made.width, "height": made.height, "phash": made.phash}
        blocked = self.maker.blocked.of_picture(result.note.md5, row["sha256"], made.phash)
        if blocked is not None:
            return Row(ask.position, columns | _dead(blocked))
        return Row(ask.position, columns | {"outcome": Outcome.ALIVE.value}, made.jpeg)


def pauses(ask: Ask, result: Result) -> Iterator[tuple[str, float | None]]:
    """Yield the domain that wants to be left alone, and for how long, if it said so."""
    end = ended(result.row["error_message"] or "")
    if end is not None and end.reason is Reason.RATE_LIMITED and end.status is not None:
        yield ask.domain, end.pause_s


def _not_resized(ask: Ask, message: str, note: Note | None) -> Row:
    reason = reason_of(NOT_RESIZED, message)
    if reason is Reason.NOT_AN_IMAGE and note is not None and note.mime:
        reason = Reason.IMAGE_TRUNCATED  # its header was sound
    return Row(ask.position, _columns(ask, note) | _dead(Refusal(reason, message[:200])))


def _joined(url: str, onward: str) -> URL | Refusal:
    """Return where a URL's ``Location`` leads."""
    target = parse(onward)
    if isinstance(target, Refusal):
        return target
    try:
        return URL(url).join(target)
    except ValueError as error:
        return Refusal(Reason.BAD_URL, str(error))


def _shown(url: str) -> str:
    """Return a URL without the password that it may have: somebody's goes into no table."""
    parsed = parse(url)
    if isinstance(parsed, Refusal) or "@" not in parsed.raw_authority:
        return url
    return str(parsed.with_user(None))


def _columns(ask: Ask, note: Note | None) -> dict[str, Any]:
    return {
        "http_status": note and note.status,
        "final_url": ask.url,
        "redirects": ask.redirects,
        "fetched_at": dt.datetime.now(dt.UTC).replace(microsecond=0),
        "opt_outs": [],
        "size_bytes": note and note.size_bytes,
        "md5": note and note.md5,
        "mime": note and note.mime,
    }


def _dead(refusal: Refusal) -> dict[str, Any]:
    return {
        "outcome": Outcome.DEAD.value,
        "reason": refusal.reason.value,
        "detail": refusal.detail or None,
    }
