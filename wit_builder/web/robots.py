"""robots.txt by RFC 9309: parsed by Protego, with what it misses put right first.

* It is asked with our product token only, and group names are reduced to their product token
  (``name/1.0``); a group for an agent whose name is part of ours is not ours.
* A byte-order mark is stripped: with it, a file that disallows all reads as one that allows all.
* ``Content-Usage`` lines of our group (IETF AIPREF drafts), which it ignores, refuse as
  ``Disallow`` does where they say ``train-ai=n``: a second parser gets them as such.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from protego import Protego
from yarl import URL

from wit_builder.tables import Reason
from wit_builder.web.agent import TOKEN
from wit_builder.web.answer import Answer, Refusal
from wit_builder.web.memory import Memory
from wit_builder.web.optouts import TRAIN_AI_NO, forbids_training

MAX_BYTES = 512_000
"""Parsed of a robots.txt; RFC 9309, section 2.5 asks for at least 500 KiB."""
KEPT_S = 24 * 3600.0
"""RFC 9309, section 2.4: not to be used for more than 24 hours."""
FAILURE_KEPT_S = 600.0

_AGENT_LINE = re.compile(r"(?im)^[ \t]*user[- ]?agent[ \t]*[: \t][ \t]*([^\r\n#]*)")
_USAGE_LINE = re.compile(r"(?i)^[ \t]*content-usage[ \t]*:[ \t]*(/\S*)?([^#]*)")
_RULE_LINE = re.compile(r"(?i)^[ \t]*(dis+al+ow|disalow|diasllow|disallaw|allow)\b")


class Rules:
    """What one robots.txt says to us.

    Args:
        body: the file's bytes; only the first ``MAX_BYTES``, up to a line's end, count.
    """

    def __init__(self, body: bytes) -> None:
        # Every line end that Protego knows, a lone carriage return too, becomes the same one here.
        lines = body[:MAX_BYTES].decode("utf-8-sig", "replace").splitlines()
        if len(body) > MAX_BYTES:
            lines.pop()
        text = _AGENT_LINE.sub(_plain_agent, "\n".join(lines))
        self._access = Protego.parse(text)
        usage = [_usage_as_rule(line) for line in text.splitlines()]
        self._usage = Protego.parse("\n".join(usage)) if any(map(_is_usage, usage)) else None

    def refusal(self, url: str) -> Refusal | None:
        """Return why we must not ask for a URL of this origin, or None."""
        if not self._access.can_fetch(url, TOKEN):
            return Refusal(Reason.ROBOTS_DISALLOWED)
        if self._usage is not None and not self._usage.can_fetch(url, TOKEN):
            return Refusal(Reason.ROBOTS_DISALLOWED, f"Content-Usage: {TRAIN_AI_NO}")
        return None


def _plain_agent(match: re.Match[str]) -> str:
    """Return the group line with our token, ``*``, or the name of somebody else entirely."""
    name = re.split(r"[/\s]", match[1].strip().lower() + " ", maxsplit=1)[0]
    if name == "*":
        return "User-agent: *"
    # Protego finds a group's name anywhere in ours: a group "wit" is not for us.
    return f"User-agent: {TOKEN if name.rstrip('*') == TOKEN else 'somebody-else'}"


def _usage_as_rule(line: str) -> str:
    """Return a ``Content-Usage`` line as the rule it amounts to, other rules as none at all."""
    usage = _USAGE_LINE.match(line)
    if usage:
        verb = "Disallow" if forbids_training(usage[2]) else "Allow"
        return f"{verb}: {usage[1] or '/'}"
    return "" if _RULE_LINE.match(line) else line


def _is_usage(line: str) -> bool:
    return line.startswith("Disallow: ")


class Robots:
    """The robots.txt of every origin asked so far, each kept for a day at most.

    A 4xx means there are no rules. Anything else that is not an answer (5xx, 429, unreachable, a
    redirect beyond the fifth or to where we must not go) means *not now*.

    Args:
        ask: asks for a robots.txt's URL, following redirects.
    """

    def __init__(self, ask: Callable[[URL], Awaitable[Answer]]) -> None:
        self._ask = ask
        self._memory: Memory[URL, Rules | Refusal] = Memory(self._rules, most=20_000)

    async def refusal(self, url: URL) -> Refusal | None:
        """Return why we must not ask for a URL, or not now; None when we may."""
        rules = await self._memory.get(url.origin())
        return rules if isinstance(rules, Refusal) else rules.refusal(str(url))

    async def _rules(self, origin: URL) -> tuple[Rules | Refusal, float]:
        answer = await self._ask(origin / "robots.txt")
        if answer.body is not None:
            return Rules(answer.body), KEPT_S
        assert answer.refusal is not None
        if answer.refusal.reason is Reason.HTTP_4XX:
            return Rules(b""), KEPT_S
        detail = f"robots.txt: {answer.refusal.reason} {answer.refusal.detail}".rstrip()
        return Refusal(Reason.ROBOTS_UNREACHABLE, detail), FAILURE_KEPT_S

    async def close(self) -> None:
        """End what is still being asked."""
        await self._memory.close()
