"""What became of one pair: the row that is published of it, its picture made."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import msgspec

from wit_builder.fetch.image import Unusable, prepare
from wit_builder.fetch.store import Row
from wit_builder.sections import ImageSection
from wit_builder.tables import Outcome, Reason
from wit_builder.web.answer import KIND_OF, Answer, Kind, Refusal
from wit_builder.web.blocklists import Blocklists


class Maker(msgspec.Struct, frozen=True):
    """What rows are made with: how pictures are to be, and which must not be kept."""

    image: ImageSection
    blocked: Blocklists


def asked(position: int, answer: Answer, maker: Maker) -> Row:
    """Return what became of a pair that the web was asked for."""
    columns = {
        "http_status": answer.status,
        "final_url": answer.final_url,
        "redirects": answer.redirects,
        "fetched_at": dt.datetime.now(dt.UTC).replace(microsecond=0),
        "opt_outs": answer.opt_outs,
    }
    if answer.body is not None:
        return _with_picture(position, columns, answer.body, maker)
    assert answer.refusal is not None
    refusal = answer.refusal
    columns |= {"outcome": answer.outcome.value, **_why(refusal.reason, refusal.detail)}
    return Row(position, columns)


def held(position: int, body: bytes, maker: Maker) -> Row:
    """Return what became of a pair whose picture is in a shard: nobody was asked, at no time."""
    return _with_picture(position, {"opt_outs": []}, body, maker)


def unasked(position: int, refusal: Refusal) -> Row:
    """Return what became of a pair that nobody was asked for."""
    deferred = KIND_OF.get(refusal.reason) is Kind.DEFERRED
    outcome = Outcome.DEFERRED if deferred else Outcome.DEAD
    why = _why(refusal.reason, refusal.detail)
    return Row(position, {"opt_outs": [], "outcome": outcome.value, **why})


def _with_picture(position: int, columns: dict[str, Any], body: bytes, maker: Maker) -> Row:
    columns |= {
        "outcome": Outcome.ALIVE.value,
        "size_bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "md5": hashlib.md5(body, usedforsecurity=False).hexdigest(),
    }
    picture = prepare(body, maker.image)
    columns |= {
        "mime": picture.mime,
        "original_width": picture.original_width,
        "original_height": picture.original_height,
    }
    if isinstance(picture, Unusable):
        columns |= {"outcome": Outcome.DEAD.value, **_why(picture.reason, picture.detail)}
        return Row(position, columns)
    columns |= {"width": picture.width, "height": picture.height, "phash": picture.phash}
    blocked = maker.blocked.of_picture(columns["md5"], columns["sha256"], picture.phash)
    if blocked is not None:
        columns |= {"outcome": Outcome.DEAD.value, **_why(blocked.reason, blocked.detail)}
        return Row(position, columns)
    return Row(position, columns, picture.jpeg)


def _why(reason: Reason, detail: str) -> dict[str, str | None]:
    return {"reason": reason.value, "detail": detail or None}
