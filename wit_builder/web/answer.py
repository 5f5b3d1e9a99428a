"""What asking can end in, and the closed table of what follows from each reason."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from wit_builder.tables import Outcome, Reason


class Kind(StrEnum):
    """What a failed request means for the next one."""

    REFUSED = "refused"
    """We must not ask; nothing was sent, and nothing will be."""
    PERMANENT = "permanent"
    """It was asked and the answer will not change."""
    TRANSIENT = "transient"
    """It may go better in a moment: asked again, ``fetch.retries`` times."""
    DEFERRED = "deferred"
    """Not now: a later round may ask."""


KIND_OF: dict[Reason, Kind] = {
    Reason.BAD_URL: Kind.REFUSED,
    Reason.SCHEME_REFUSED: Kind.REFUSED,
    Reason.CREDENTIALS_IN_URL: Kind.REFUSED,
    Reason.PRIVATE_ADDRESS: Kind.REFUSED,
    Reason.ROBOTS_DISALLOWED: Kind.REFUSED,
    Reason.OPT_OUT_HEADER: Kind.REFUSED,
    Reason.OPT_OUT_IMAGE: Kind.REFUSED,
    Reason.BLOCKED: Kind.REFUSED,
    Reason.REMOVED: Kind.REFUSED,
    Reason.ROBOTS_UNREACHABLE: Kind.DEFERRED,
    Reason.DOMAIN_BUDGET: Kind.DEFERRED,
    Reason.DOMAIN_DOWN: Kind.DEFERRED,
    Reason.MOVED: Kind.DEFERRED,
    Reason.RATE_LIMITED: Kind.DEFERRED,
    Reason.DNS_FAILED: Kind.TRANSIENT,
    Reason.CONNECT_FAILED: Kind.TRANSIENT,
    Reason.HTTP_5XX: Kind.TRANSIENT,
    Reason.BODY_INCOMPLETE: Kind.TRANSIENT,
    Reason.TLS_FAILED: Kind.PERMANENT,
    Reason.DEADLINE: Kind.PERMANENT,
    Reason.HTTP_4XX: Kind.PERMANENT,
    Reason.REDIRECT_LOOP: Kind.PERMANENT,
    Reason.BODY_TOO_LARGE: Kind.PERMANENT,
}
"""Every reason a request can fail for. A reason about the picture is not the web's to give."""


class Refusal(msgspec.Struct, frozen=True):
    """Why there is no body: a reason, free words on it, and whether trying again is pointless."""

    reason: Reason
    detail: str = ""
    final: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What came of asking for one URL.

    ``body`` is there exactly where ``refusal`` is not; but neither is where the status is 304, to
    a conditional request. ``status`` is that of the last response,
    ``final_url`` the last URL asked for, or the one that was not because of ``refusal``,
    ``redirects`` how many led there,
    ``headers`` the response's headers of interest with lower-case names, ``head`` all its header
    lines as they came (of pages only), ``opt_outs`` the signals seen.
    """

    final_url: str
    status: int | None = None
    redirects: int = 0
    headers: dict[str, str] = {}
    head: list[tuple[str, str]] = []
    body: bytes | None = None
    refusal: Refusal | None = None
    opt_outs: list[str] = []

    @property
    def outcome(self) -> Outcome:
        """What it means for the pair, as far as the web can tell."""
        if self.refusal is None:
            return Outcome.ALIVE
        if self.refusal.reason is Reason.MOVED:
            return Outcome.MOVED
        deferred = KIND_OF[self.refusal.reason] is Kind.DEFERRED
        return Outcome.DEFERRED if deferred else Outcome.DEAD
