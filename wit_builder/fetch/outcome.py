"""What became of one pair: the row that is published of it, its picture made."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

from wit_builder.fetch.image import Unusable, prepare
from wit_builder.fetch.store import Row
from wit_builder.sections import ImageSection
from wit_builder.tables import Outcome, Reason
from wit_builder.web.answer import Answer, Refusal


def asked(position: int, answer: Answer, section: ImageSection) -> Row:
    """Return what became of a pair that the web was asked for."""
    columns = {
        "http_status": answer.status,
        "final_url": answer.final_url,
        "fetched_at": dt.datetime.now(dt.UTC).replace(microsecond=0),
        "opt_outs": answer.opt_outs,
    }
    if answer.body is not None:
        return _with_picture(position, columns, answer.body, section)
    assert answer.refusal is not None
    refusal = answer.refusal
    columns |= {"outcome": answer.outcome.value, **_why(refusal.reason, refusal.detail)}
    return Row(position, columns)


def held(position: int, body: bytes | Refusal, section: ImageSection) -> Row:
    """Return what became of a pair whose picture is in a shard: nobody was asked, at no time."""
    columns: dict[str, Any] = {"opt_outs": []}
    if isinstance(body, bytes):
        return _with_picture(position, columns, body, section)
    columns |= {"outcome": Outcome.DEAD.value, **_why(body.reason, body.detail)}
    return Row(position, columns)


def _with_picture(
    position: int, columns: dict[str, Any], body: bytes, section: ImageSection
) -> Row:
    columns |= {
        "outcome": Outcome.ALIVE.value,
        "size_bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "md5": hashlib.md5(body, usedforsecurity=False).hexdigest(),
    }
    picture = prepare(body, section)
    columns |= {
        "mime": picture.mime,
        "original_width": picture.original_width,
        "original_height": picture.original_height,
    }
    if isinstance(picture, Unusable):
        columns |= {"outcome": Outcome.DEAD.value, **_why(picture.reason, picture.detail)}
        return Row(position, columns)
    columns |= {"width": picture.width, "height": picture.height, "phash": picture.phash}
    return Row(position, columns, picture.jpeg)


def _why(reason: Reason, detail: str) -> dict[str, str | None]:
    return {"reason": reason.value, "detail": detail or None}
