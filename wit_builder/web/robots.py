"""robots.txt by RFC 9309: which lines are ours is found here, what they match is Protego's to say.

* Groups are found by our product token alone, whatever version follows it (``name/1.0``); a group
  for an agent whose name is part of ours is not ours. Lines that mean nothing end no group.
* A byte-order mark is stripped: with it, a file that disallows all reads as one that allows all.
* ``Content-Usage`` lines of our group (IETF AIPREF drafts) refuse as ``Disallow`` does where they
  say ``train-ai=n``: a second parser gets them as such.

What differs from the RFC, and why, stands beside the corpus: ``tests/web/robots/expected.toml``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote

from protego import Protego
from yarl import URL

from wit_builder.tables import Reason
from wit_builder.web.agent import TOKEN
from wit_builder.web.answer import Answer, Refusal
from wit_builder.web.memory import Memory
from wit_builder.web.notes import Notes, RobotsFile
from wit_builder.web.optouts import TRAIN_AI_NO, forbids_training

MAX_BYTES = 512_000
"""Parsed of a robots.txt; RFC 9309, section 2.5 asks for at least 500 KiB."""
KEPT_S = 24 * 3600.0
"""RFC 9309, section 2.4: not to be used for more than 24 hours."""
FAILURE_KEPT_S = 600.0
_NOT_ASKED = {Reason.RATE_LIMITED, Reason.DOMAIN_DOWN}
"""If final: nothing was sent, because the domain is left alone; it says nothing of the origin."""
_FILES = 20_000
_FILES_BYTES = 32 << 20
"""Files kept in memory at once; parsed they take about ten times as much."""

_FIELD = re.compile(
    r"""(?xi) \s* (?:
        (?P<agent> user[- ]?agent) | (?P<allow> allow) | (?P<delay> crawl[- ]delay)
        | (?P<disallow> dis+al+ow | diasllow | disallaw) # as they are misspelt
        | (?P<sitemap> sitemaps? | site-map) | (?P<usage> content-usage)
    ) (?: \s*: | \s)"""
)
_ACCESS = {"allow", "disallow"}
_EVERYBODY = "*"
_TRAIN_AI = TRAIN_AI_NO.partition("=")[0]
_USAGE = re.compile(r"([/*]\S*)?(.*)")
_SECONDS = re.compile(r"\d{1,9}(\.\d{0,9})?|\.\d{1,9}")


class _Line(NamedTuple):
    """A line that means something: the name of its field in ``_FIELD``, and its value."""

    field: str
    value: str


class Rules:
    """What one robots.txt says to us.

    Args:
        body: the file's bytes; only the first ``MAX_BYTES``, up to a line's end, count.

    Attributes:
        crawl_delay_s: seconds that our group asks for between two requests; 0 if it asks for none.
        sitemaps: URLs of the sitemaps that the file names, as they stand there.
        size_bytes: of what is kept of it.
    """

    def __init__(self, body: bytes) -> None:
        # Not splitlines(): to that, a form feed or U+2028 in a path or a comment ends a line, too.
        lines = re.split("\r\n|\r|\n", body[:MAX_BYTES].decode("utf-8-sig", "replace"))
        if len(body) > MAX_BYTES:
            lines.pop()
        told = [_line(field, line) for line in lines if (field := _FIELD.match(line))]
        self.sitemaps = [line.value for line in told if line.field == "sitemap" and line.value]
        ours = _ours(line for line in told if line.field != "sitemap")
        delays = [line.value for line in ours if line.field == "delay"]
        self.crawl_delay_s = max((float(d) for d in delays if _SECONDS.fullmatch(d)), default=0.0)
        access = [(line.value, line.field == "allow") for line in ours if line.field in _ACCESS]
        usage = _usage(line.value for line in ours if line.field == "usage")
        self._access, self._usage = _parsed(access), _parsed(usage)
        kept = [*self.sitemaps, *(path for path, _ in access + usage)]
        self.size_bytes = sum(map(len, kept))

    def refusal(self, url: str) -> Refusal | None:
        """Return why we must not ask for a URL of this origin, or None."""
        for rules, detail in ((self._access, ""), (self._usage, f"Content-Usage: {TRAIN_AI_NO}")):
            if rules is not None and not rules.can_fetch(_comparable(url), TOKEN):
                return Refusal(Reason.ROBOTS_DISALLOWED, detail)
        return None


def _line(field: re.Match[str], line: str) -> _Line:
    assert field.lastgroup is not None
    return _Line(field.lastgroup, line[field.end() :].partition("#")[0].strip())


def _ours(lines: Iterable[_Line]) -> list[_Line]:
    """Return the lines of all groups for us; where there is none, of those for everybody."""
    groups: dict[str, list[_Line]] = {}
    names: set[str] = set()
    heading = False
    for line in lines:
        if line.field == "agent":
            names = names if heading else set()
            name = _product_token(line.value)
            if name in {TOKEN, _EVERYBODY}:
                names.add(name)
                groups.setdefault(name, [])
        else:
            for name in names:
                groups[name].append(line)
        heading = line.field == "agent"
    return groups.get(TOKEN, groups.get(_EVERYBODY, []))


def _product_token(agent: str) -> str:
    """Return the name of an agent, in lower case and without its version or a star after it."""
    name = re.split(r"[/\s]", agent.lower(), maxsplit=1)[0]
    return name.rstrip("*") or name[:1]


def _usage(values: Iterable[str]) -> list[tuple[str, bool]]:
    """Return the paths of ``Content-Usage`` values, and whether each may be trained on.

    What says nothing about training is left out; of two for the same path, the stricter counts.
    """
    allowed: dict[str, bool] = {}
    for value in values:
        path, said = _USAGE.findall(value)[0]
        if _TRAIN_AI in said.lower():
            path = path or "/"
            allowed[path] = allowed.get(path, True) and not forbids_training(said)
    return list(allowed.items())


def _parsed(rules: list[tuple[str, bool]]) -> Protego | None:
    """Return a parser of rules, all of them ours: each a path and whether it is allowed.

    None where they forbid nothing; to Protego, too, an empty path is no rule.
    """
    if not any(path and not allowed for path, allowed in rules):
        return None
    verbs = {True: "Allow", False: "Disallow"}
    lines = [f"{verbs[allowed]}: {_comparable(path)}" for path, allowed in rules]
    return Protego.parse("\n".join([f"User-agent: {TOKEN}", *lines]))


def _comparable(path: str) -> str:
    """Return a path, or a URL, in the form to compare in, as far as Protego does not see to it.

    A slash in a query is the same with and without its escape (RFC 9309, section 2.2.2, the table);
    URLs come here without. What may not stand in a URL is escaped, for some of it ends lines.
    """
    path, mark, query = path.partition("?")
    unescaped = re.sub("(?i)%2f", "/", query)
    return re.sub(r"[^\x21-\x7e]+", lambda found: quote(found[0]), path + mark + unescaped)


class Robots:
    """The robots.txt of every origin asked so far, each kept for a day at most.

    A 4xx means there are no rules. Anything else that is not an answer (5xx, 429, unreachable, a
    redirect beyond the fifth or to where we must not go) means *not now*.

    Args:
        ask: asks for a robots.txt's URL, following redirects.
        notes: remember files from one worker to the next.
    """

    def __init__(self, ask: Callable[[URL], Awaitable[Answer]], notes: Notes) -> None:
        self._ask = ask
        self._notes = notes
        self._memory: Memory[URL, Rules | Refusal] = Memory(
            self._rules, most=_FILES, size=_size, most_size=_FILES_BYTES
        )

    async def rules(self, url: URL) -> Rules | Refusal:
        """Return the rules of a URL's origin, or why nothing of it may be asked for now."""
        return await self._memory.get(url.origin())

    async def _rules(self, origin: URL) -> tuple[Rules | Refusal, float]:
        file = self._notes.robots(str(origin))
        if file is None:
            answer = await self._ask(origin / "robots.txt")
            if answer.refusal and answer.refusal.final and answer.refusal.reason in _NOT_ASKED:
                return answer.refusal, 0.0
            file = _file(origin, answer)
            self._notes.add(file)
        holds_s = file.until - time.time()
        if file.body is None:
            return Refusal(Reason.ROBOTS_UNREACHABLE, f"robots.txt: {file.refusal}"), holds_s
        return Rules(file.body), holds_s

    async def close(self) -> None:
        """End what is still being asked."""
        await self._memory.close()


def _file(origin: URL, answer: Answer) -> RobotsFile:
    """Return what an answer makes of an origin's robots.txt: without a file there are no rules."""
    now = time.time()
    if answer.body is not None:
        return RobotsFile(str(origin), now + KEPT_S, answer.body)
    assert answer.refusal is not None
    if answer.refusal.reason is Reason.HTTP_4XX:
        return RobotsFile(str(origin), now + KEPT_S, b"")
    why = f"{answer.refusal.reason} {answer.refusal.detail}".rstrip()
    return RobotsFile(str(origin), now + FAILURE_KEPT_S, None, why)


def _size(rules: Rules | Refusal) -> int:
    return rules.size_bytes if isinstance(rules, Rules) else 0
