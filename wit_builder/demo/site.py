"""The plan of the demo's web: every address, what stands there, and what it says. No network here.

Everything is a function of ``Settings``: hosts, paths, texts, looks and faults are drawn from
hashes, and nothing depends on the port, the time or the order of requests.

======================  ======================================================================
what                    where
======================  ======================================================================
pages                   22 domains; every other one is crawled live, the rest is in WARC files
pictures                on the page's own host, on its ``img.`` host, or on a CDN of another domain
``shortlink.test``      sends on to pictures elsewhere
``slowpoke.test``       never answers for a picture
``brokenrobots.test``   has pictures, and a 500 for a robots.txt
======================  ======================================================================
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import jinja2
import msgspec
import xxhash

from wit_builder.demo import captions, data
from wit_builder.demo.captions import TEXT_SHARES, Text
from wit_builder.demo.data import Concept, Look, seeded
from wit_builder.demo.faults import (
    FAULTS,
    LURES,
    NO_AI_HEADER_PAGES_SHARE,
    NO_AI_PAGES_SHARE,
    RETOLD_SHARE,
    Fault,
)

LICENSE_URL = "https://creativecommons.org/licenses/by-sa/4.0/"  # OpenMoji's

CDN = "picture-cdn.test"
SHORTLINK = "shortlink.test"
SLOWPOKE = "slowpoke.test"
BROKEN_ROBOTS = "brokenrobots.test"

DOMAINS = [
    "birdwatch.test",
    "recipes.test",
    "museum.test",
    "gardening.test",
    "travelnotes.test",
    "playground.test",
    "weatherclub.test",
    "toyshop.test",
    "oldmaps.test",
    "kitchenware.test",
    "petcorner.test",
    "classroom.test",
    "stickerbook.test",
    "railfans.test",
    "nightsky.test",
    "seaside.test",
    "orchestra.test",
    "workshop.test",
    "festival.test",
    "library.test",
    "marketday.test",
    "farmlife.test",
]
"""Those that have pages."""

_FORBIDDING = {
    "museum.test": "*",
    "classroom.test": "wit-builder",
    "library.test": "*",
    "orchestra.test": "wit-builder",
    "kitchenware.test": "*",
}

_FIGURES_PER_PAGE = 36


class Settings(msgspec.Struct, frozen=True):
    """What the web is a function of.

    Attributes:
        data: the demo's data folder.
        seed: of all draws.
        concepts: how many; None for all.
        variants: pictures a concept.
    """

    data: str
    seed: int = 0
    concepts: int | None = None
    variants: int = 5


class Picture(NamedTuple):
    """A picture's address, what it shows, and what is wrong with it.

    Attributes:
        url: as pages name it.
        target: the address the picture is served at: another one if ``url`` redirects.
    """

    url: str
    target: str
    concept: Concept
    look: Look
    fault: Fault
    home: str


class Figure(NamedTuple):
    """A picture on a page, and the texts that come with it."""

    src: str
    alt: str | None
    title: str
    figcaption: str
    loading: Literal["", "lazy", "data-src"]


class Link(NamedTuple):
    """A link to another page."""

    href: str
    text: str


class Page(NamedTuple):
    """A page of a site."""

    host: str
    path: str
    template: Literal["index", "gallery", "article"]
    title: str
    figures: list[Figure]
    links: list[Link]
    no_ai: Literal["", "meta", "header"] = ""
    lures: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{self.host}{self.path}"

    def html(self) -> bytes:
        """Return the page's HTML, in UTF-8."""
        template = _templates().get_template(f"{self.template}.html")
        return template.render(page=self, license=LICENSE_URL).encode()

    def headers(self) -> dict[str, str]:
        """Return the headers the page is sent with."""
        opt_out = {"X-Robots-Tag": "noai"} if self.no_ai == "header" else {}
        return {"Content-Type": "text/html; charset=utf-8", **opt_out}


class Plan(NamedTuple):
    """The whole web."""

    settings: Settings
    concepts: list[Concept]
    pages: dict[str, Page]
    pictures: dict[str, Picture]

    @property
    def served(self) -> dict[str, Picture]:
        """The pictures by where they are served: redirects resolved."""
        return {p.target: p for p in self.pictures.values()}


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wit_builder.demo"),
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    module = environment.get_template("image.html").module
    environment.globals["image"] = module.image  # type: ignore[attr-defined]  # the macro's name
    return environment


def live_hosts() -> list[str]:
    """Return the domains that are to be crawled live."""
    return DOMAINS[::2]


def archived_hosts() -> list[str]:
    """Return the domains whose pages are in WARC files."""
    return DOMAINS[1::2]


def seeds() -> list[str]:
    """Return where a live crawl starts."""
    return [f"http://{host}/" for host in live_hosts()]


def robots(host: str) -> tuple[int, str]:
    """Return the status and the text of a host's robots.txt."""
    if host == BROKEN_ROBOTS:
        return 500, "the database is on holiday\n"
    if host in _FORBIDDING:
        return 200, f"# welcome\nUser-agent: {_FORBIDDING[host]}\nDisallow: /members/\n"
    return 404, "no such page\n"


def plan(settings: Settings) -> Plan:
    """Return the web that the settings make.

    Raises:
        MissingPartError: the packages with the pictures or their names are not installed.
        DemoError: the data folder cannot be written.
    """
    concepts = data.concepts(settings.data, settings.concepts)
    pictures = _pictures(settings, concepts)
    pages = _pages(settings, pictures)
    return Plan(settings, concepts, pages, {p.url: p for p in pictures})


# --- pictures --------------------------------------------------------------


def _pictures(settings: Settings, concepts: list[Concept]) -> list[Picture]:
    keys = list(itertools.product(concepts, range(settings.variants)))
    faults = _allot(settings, [f"{c.code}/{v}" for c, v in keys])
    made = [_picture(settings, c, v, faults[f"{c.code}/{v}"]) for c, v in keys]
    groups = [made[i : i + settings.variants] for i in range(0, len(made), settings.variants)]
    return [
        _twin(p, siblings) if p.fault is Fault.TWIN else p for siblings in groups for p in siblings
    ]


def _allot(settings: Settings, names: list[str]) -> dict[str, Fault]:
    """Return every picture's fault: in the order of their hashes, so many of each."""
    order = sorted(names, key=lambda name: (_hash(settings, "fault", name), name))
    faults = [
        fault for fault, row in FAULTS.items() for _ in range(max(1, round(row.share * len(names))))
    ]
    return dict(itertools.zip_longest(order, faults[: len(order)], fillvalue=Fault.NONE))


def _picture(settings: Settings, concept: Concept, variant: int, fault: Fault) -> Picture:
    rng = seeded(settings.seed, "place", concept.code, variant)
    look = data.look(settings.seed, concept, variant)
    if fault in (Fault.TRUNCATED, Fault.CUT_OFF):
        look = msgspec.structs.replace(look, kind="jpg")
    home = rng.choice(DOMAINS)
    host = rng.choices([home, f"img.{home}", CDN], [60, 25, 15])[0]
    name = f"{_slug(concept.name)}-{_hash(settings, 'name', f'{concept.code}/{variant}')[:6]}"
    file = f"/pictures/{name}.{look.kind}"
    url, target = f"http://{host}{file}", f"http://{host}{file}"
    if fault is Fault.FORBIDDEN:
        url = target = f"http://{rng.choice(list(_FORBIDDING))}/members/{name}.{look.kind}"
    elif fault is Fault.ROBOTS_BROKEN:
        url = target = f"http://{BROKEN_ROBOTS}{file}"
    elif fault is Fault.SLOW:
        url = target = f"http://{SLOWPOKE}{file}"
    elif fault is Fault.MOVED:
        url = f"http://{host}/old/{name}.{look.kind}"
    elif fault is Fault.MOVED_AWAY:
        url = f"http://{SHORTLINK}/{_hash(settings, 'short', target)[:10]}"
    elif fault is Fault.LOOP:
        url = target = f"http://{host}/loop/{name}.{look.kind}"
    return Picture(url, target, concept, look, fault, home)


def _twin(twin: Picture, siblings: list[Picture]) -> Picture:
    """Return the picture with the bytes of a faultless sibling, on another host than that."""
    for sibling in siblings:
        if sibling.fault is Fault.NONE:
            path = f"{urlsplit(twin.url).path.rpartition('.')[0]}.{sibling.look.kind}"
            host = CDN if urlsplit(sibling.url).netloc != CDN else twin.home
            url = f"http://{host}{path}"
            return twin._replace(url=url, target=url, look=sibling.look)
    return twin._replace(fault=Fault.NONE)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _hash(settings: Settings, *parts: str) -> str:
    return xxhash.xxh64_hexdigest("\0".join([str(settings.seed), *parts]).encode())


# --- pages -----------------------------------------------------------------


def _pages(settings: Settings, pictures: list[Picture]) -> dict[str, Page]:
    shown: dict[str, list[Picture]] = {host: [] for host in DOMAINS}
    for picture in sorted(pictures, key=lambda p: (_hash(settings, "page", p.url), p.url)):
        shown[picture.home].append(picture)
        rng = seeded(settings.seed, "retold", picture.url)
        if rng.random() < RETOLD_SHARE:
            shown[rng.choice(DOMAINS)].append(picture)
    pages = [page for host in DOMAINS for page in _site(settings, host, shown[host])]
    return {page.url: page for page in _with_opt_outs(settings, pages)}


def _site(settings: Settings, host: str, pictures: list[Picture]) -> Iterator[Page]:
    """Yield a domain's pages: the index, then the galleries, each linking to its neighbours."""
    starts = range(0, len(pictures), _FIGURES_PER_PAGE)
    folder = seeded(settings.seed, "site", host).choice(["gallery", "pages", "p", "archive"])
    paths = [f"/{folder}/{number}.html" for number in range(1, len(starts) + 1)]
    if host in _FORBIDDING and host in live_hosts() and len(paths) > 1:
        paths[-1] = "/members/for-members-only.html"
    links = [Link(path.removeprefix("/"), f"Page {i}") for i, path in enumerate(paths, 1)]
    name = host.removesuffix(".test")
    yield Page(host, "/", "index", f"The {name} pages", [], links, lures=tuple(LURES))
    template: Literal["gallery", "article"] = (
        "article" if DOMAINS.index(host) % 3 == 2 else "gallery"
    )
    for number, (start, path) in enumerate(zip(starts, paths, strict=True)):
        around = [
            Link(paths[i], f"Page {i + 1}") for i in (number - 1, number + 1) if 0 <= i < len(paths)
        ]
        figures = [
            _figure(settings, path, host, picture)
            for picture in pictures[start : start + _FIGURES_PER_PAGE]
        ]
        yield Page(host, path, template, f"The {name} pages, {number + 1}", figures, around)


def _with_opt_outs(settings: Settings, pages: list[Page]) -> list[Page]:
    """Return the pages, some galleries of each half of the web with an opt-out of their own."""
    out = {page.url: page for page in pages}
    for half in (live_hosts(), archived_hosts()):
        galleries = [p for p in pages if p.host in half and p.template != "index"]
        order = sorted(galleries, key=lambda p: _hash(settings, "opt-out", p.url))
        meta = max(1, round(NO_AI_PAGES_SHARE * len(galleries)))
        header = max(1, round(NO_AI_HEADER_PAGES_SHARE * len(galleries)))
        for page in order[:meta]:
            out[page.url] = page._replace(no_ai="meta")
        for page in order[meta : meta + header]:
            out[page.url] = page._replace(no_ai="header")
    return list(out.values())


def _figure(settings: Settings, path: str, host: str, picture: Picture) -> Figure:
    """Return a picture with the texts it has on this page."""
    rng = seeded(settings.seed, "figure", host, path, picture.url)
    name = picture.concept.name
    kind = rng.choices(list(TEXT_SHARES), list(TEXT_SHARES.values()))[0]
    alt = captions.write(rng, kind, name, picture.look.background)
    telling = kind is Text.CAPTION
    return Figure(
        src=_spelled(rng, picture.url, host, path),
        alt=alt,
        title=name if telling and rng.random() < 0.15 else "",
        figcaption=captions.credit(rng, name) if telling and rng.random() < 0.35 else "",
        loading=rng.choices(["", "lazy", "data-src"], [75, 22, 3])[0],  # type: ignore[arg-type]  # choices() forgets the literals
    )


def _spelled(rng: random.Random, url: str, host: str, path: str) -> str:
    """Return an image's address the way one of many authors would write it."""
    parts = urlsplit(url)
    if parts.netloc != host:
        return rng.choice([url, url, f"//{parts.netloc}{parts.path}"])
    up = "../" * (path.count("/") - 1)
    return rng.choice([url, parts.path, parts.path, f"{up}{parts.path[1:]}"])
