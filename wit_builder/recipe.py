"""A TOML recipe becomes frozen structs; an unknown or wrong key is refused with its path.

``load`` works for any struct (the trainer has its own). ``Recipe`` describes a build; every key has
a default that a first run can live with, apart from ``crawl.sources`` and ``fetch.contact``.
Each stage reads its own section, and a section's digest decides whether a unit is done.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import tomli_w
import xxhash
from msgspec import Meta
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.errors import RecipeError, StorageError

T = TypeVar("T")

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Texts = Annotated[list[str], Meta(min_length=1)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section of a recipe."""


class WordNetSource(_Section, frozen=True):
    """Synset names from a folder of Princeton database files (``data.noun`` and its siblings)."""

    path: str
    """Folder of the database files."""
    names: Literal["first", "all"] = "first"
    """Take each synset's first name, or all its synonyms as well."""


class WikipediaSource(_Section, frozen=True):
    """Words, bigrams and titles of Wikipedia, or of any text counted in its stead."""

    dumps: list[str] = []
    """``pages-articles`` dumps (``.xml``, also as ``.bz2``, ``.gz`` or ``.zst``), or ``.parquet``
    files with columns ``title`` and ``text`` (plain text); files or shell patterns."""
    counts: list[str] = []
    """Ready counts, added to those of the dumps: columns ``gram`` and ``count``."""
    title_lists: list[str] = []
    """Further titles: a title a line, or columns ``title`` and ``views``."""
    pageviews: list[str] = []
    """Wikimedia's hourly or monthly ("complete") page view files; files or shell patterns."""
    views_of: Literal["all", "desktop", "mobile"] = "all"
    """Which visits count."""
    unigram_min_count: Positive = 100
    """Occurrences that make a word a query; 100 is the CLIP paper's."""
    unigram_budget: Natural | None = None
    """Words to take, most frequent first; by default all above the floor."""
    bigram_min_count: Positive = 25
    """Occurrences below which two neighbouring words are left out, whatever their PMI."""
    bigram_min_pmi: float | None = None
    """Bits of PMI below which they are left out, too."""
    bigram_budget: Natural = 100_000
    """Bigrams to take, highest PMI first; 0 for none."""
    longest_gram: Annotated[int, Meta(ge=2, le=5)] = 2
    """Words of the longest run of words that is counted."""
    ngram_min_count: Positive = 25
    """Occurrences below which a run of three or more words is left out."""
    ngram_budget: Natural = 10_000
    """Runs of three words or more to take, highest PMI for each pair of neighbours first."""
    titles: bool = True
    """Take the titles of articles."""
    title_min_views: Natural = 0
    """Page views below which a title is left out."""
    title_budget: Natural | None = None
    """Titles to take, most viewed first; by default all that the list has room for."""


class QueriesSection(_Section, frozen=True):
    """Which sources make the query list, in their fixed order of precedence.

    A budget counts the queries that a source adds to those of the sources before it.
    """

    language: str = "en"
    """Language code of the Wikipedia: picks its page views, and the rule for titles of lists."""
    size: Positive = 500_000
    """Queries at most; sources that come late take what is left. 500,000 is the CLIP paper's."""
    strict_budgets: bool = False
    """Fail when a source falls short of its budget, instead of warning."""
    buckets: Natural = 0
    """Parts in which counts are merged, each in memory at once; 0: one for 64 MiB of input."""
    numbers: Natural = 100
    """The numbers 0 to N-1 are queries."""
    custom: list[str] = []
    """Lists of your own: a query a line, or columns ``query`` and ``weight`` (heaviest first)."""
    custom_budget: Natural | None = None
    """Custom queries to take; by default all."""
    wordnet: WordNetSource | None = None
    """The section ``[queries.wordnet]``; without it WordNet is not a source."""
    wikipedia: WikipediaSource | None = None
    """The section ``[queries.wikipedia]``; without it Wikipedia is not a source."""


class WarcSource(_Section, frozen=True, tag="warc", tag_field="kind"):
    """HTML responses of WARC files."""

    paths: Texts
    """WARC files or shell patterns, local or remote; ``.warc`` or ``.warc.gz``."""


class SiteSource(_Section, frozen=True, tag="site", tag_field="kind"):
    """A live crawl from seeds, within their hosts."""

    seeds: Texts
    """Pages to start from; only links within their hosts are followed."""
    max_depth: Natural = 3
    """Links to follow from a seed; 0 reads the seeds alone."""
    max_pages: Positive = 10_000
    """Pages to ask for of each registrable domain."""


class CrawlSection(_Section, frozen=True):
    """Where candidates come from."""

    sources: list[WarcSource | SiteSource] = []
    """The ``[[crawl.sources]]`` sections, in any number; a build needs one at least."""
    max_html_bytes: Positive = 4 << 20
    """Bytes beyond which a page is rejected unread."""


class MatchSection(_Section, frozen=True):
    """Which texts are worth keeping, and how they are matched."""

    min_chars: Positive = 3
    """Characters below which a text is rejected."""
    max_chars: Positive = 4096
    """Characters above which a text is rejected."""


class BalanceSection(_Section, frozen=True):
    """How many pairs each query keeps."""

    method: Literal["exact"] = "exact"
    """How pairs are drawn: each query draws its lowest-ranked ones."""
    cap_per_query: Positive = 20_000
    """Pairs that a query keeps at most; 20,000 is the CLIP paper's."""
    rounds: Positive = 3
    """Rounds of asking at most; each tops up what the one before lost."""
    over_draw: Annotated[float, Meta(ge=1, le=10)] = 1.0
    """Asked for per pair wanted in the first round; later rounds use the observed survival."""


class FetchSection(_Section, frozen=True):
    """How images are asked for: politely, within limits."""

    contact: str = ""
    """URL or e-mail address in the user agent; must be set for the live web."""
    concurrency: Positive = 64
    """Requests under way at once in each worker process."""
    per_domain_concurrency: Positive = 4
    """Requests under way at once to one registrable domain."""
    per_domain_interval_s: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds between the starts of two requests to one registrable domain, at least."""
    deadline_s: Seconds = 20.0
    """Seconds that servers have for one URL, redirects and retries included; queueing is not."""
    max_body_bytes: Positive = 32 << 20
    """Bytes of a body beyond which it is not read on."""
    max_redirects: Natural = 5
    """Redirects that are followed for one URL; each is a new question to the gate."""
    retries: Natural = 1
    """Times a URL is asked again after a fault that may pass."""
    part_s: Seconds = 60.0
    """Seconds after which what was fetched is published: a kill loses no more than that."""
    flood_share: Share = 0.98
    """Stop when one reason takes more than this share of a unit ..."""
    flood_min: Positive = 500
    """... that has at least so many pairs."""


class ImageSection(_Section, frozen=True):
    """What a picture becomes before it is packed."""

    size_px: Positive = 256
    """Pixels of the shorter side after resizing; a smaller picture is left as it is."""
    mode: Literal["keep_ratio", "center_crop"] = "keep_ratio"
    """Keep the whole picture, or cut its centre square out (of those that are resized)."""
    quality: Annotated[int, Meta(ge=1, le=100)] = 95
    """JPEG quality of what is encoded anew; a JPEG that needs no change keeps its pixels."""
    max_pixels: Positive = 89_478_485
    """Pixels beyond which a picture is not decoded: Pillow's own limit against bombs."""
    min_side_px: Positive = 8
    """Pixels of the shorter side below which a picture is rejected."""
    max_aspect: Annotated[float, Meta(ge=1)] = 20.0
    """Longer side by shorter side, above which a picture is rejected."""


class PackSection(_Section, frozen=True):
    """How pairs become shards."""

    samples_per_shard: Positive = 10_000
    """Samples of a shard on average; the number of shards follows from it."""
    max_block_bytes: Annotated[int, Meta(ge=4096, le=4 << 20)] = 4 << 20
    """Bytes of a block at most: one range read of the trainer."""


class Recipe(_Section, frozen=True):
    """All a build needs to know."""

    name: str = "wit"
    """Title of the report."""
    seed: Natural = 0
    """Decides every draw, dedup and place in the shards; the same seed gives the same bytes."""
    buckets: Positive = 16
    """Exchange buckets: about total bytes / 2 GiB, more for parallel work."""
    queries: QueriesSection = QueriesSection()
    crawl: CrawlSection = CrawlSection()
    match: MatchSection = MatchSection()
    balance: BalanceSection = BalanceSection()
    fetch: FetchSection = FetchSection()
    image: ImageSection = ImageSection()
    pack: PackSection = PackSection()


def load(place: str, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Return the recipe at a place as a ``kind``, with ``key.path=value`` overrides applied.

    Args:
        place: TOML file, local or remote.
        kind: a frozen ``msgspec.Struct`` that forbids unknown fields.
        overrides: values are TOML (``3``, ``"text"``, ``[1, 2]``); a bare word is a string.

    Raises:
        RecipeError: not TOML, an unknown key, a wrong type or an impossible value; names the key.
    """
    try:
        data = tomllib.loads(storage.read_bytes(place).decode())
    except StorageError as error:
        raise RecipeError("cannot read the recipe", where=place, fix=error.what) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"not valid TOML: {error}", where=place, fix="correct it there"
        ) from error
    for override in overrides:
        _apply(data, override)
    return convert(data, kind, where=place)


def convert(data: dict[str, Any], kind: type[T], *, where: str = "") -> T:
    """Return parsed TOML as a ``kind``, strictly.

    Raises:
        RecipeError: an unknown key, a wrong type or an impossible value; names the key.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$.")
        key = at.rstrip("`")
        raise RecipeError(
            message, where=": ".join(p for p in (where, key) if p), fix=_advice(message, key, kind)
        ) from error


def _advice(message: str, key: str, kind: Any) -> str:
    unknown = re.search(r"unknown field `(\w+)`", message)
    if not unknown:
        return f"set {key or 'it'} to a value of that kind"
    known = _fields_at(kind, [p for p in re.sub(r"\[\.*\w*\]", "", key).split(".") if p])
    close = difflib.get_close_matches(unknown[1], known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def _fields_at(kind: Any, path: list[str]) -> list[str]:
    """Return the field names of the struct (or of all structs of the union) at a key path."""
    structs = _structs_in(kind)
    for part in path:
        hints = [typing.get_type_hints(s, include_extras=False).get(part) for s in structs]
        structs = [inner for hint in hints if hint is not None for inner in _structs_in(hint)]
    return sorted({name for s in structs for name in s.__struct_fields__})


def _structs_in(hint: Any) -> list[Any]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [s for argument in typing.get_args(hint) for s in _structs_in(argument)]


def _apply(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(
            "not of the form key.path=value", where=f"--set {override}", fix="e.g. --set seed=1"
        )
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise RecipeError(
                f"{key} is not a section", where=f"--set {override}", fix="check the path"
            )
    data[keys[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def dump(recipe: msgspec.Struct) -> str:
    """Return the recipe as TOML with every default written out, its digest in the first line."""
    body = tomli_w.dumps(_without_none(msgspec.to_builtins(recipe)))
    return f"# resolved recipe, digest {digest(recipe)}\n{body}"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value


def digest(settings: Any) -> str:
    """Return the xxh3-128 hex digest of a recipe or a section, independent of key order."""
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(settings, order="deterministic"))


def read(place: str, overrides: Sequence[str] = ()) -> Recipe:
    """Return a build's recipe, its relative paths taken from the recipe's own folder.

    Raises:
        RecipeError: it cannot be read, or a key is unknown or wrong.
    """
    base = place.rpartition("/")[0] or "."
    base = base if storage.is_remote(base) else str(Path(base).resolve())
    return anchored(load(place, Recipe, overrides), base)


def anchored(recipe: Recipe, base: str) -> Recipe:
    """Return the recipe with relative paths of its inputs taken from ``base``, its own folder."""

    def at(path: str) -> str:
        storage.refuse_credentials(path)  # before the recipe is written to the run's folder
        absolute = storage.is_remote(path) or Path(path).is_absolute()
        return path if absolute else storage.join(base, path)

    return _with_inputs(recipe, at)


def lineage(recipe: Recipe) -> str:
    """Return a digest of the recipe wherever its inputs lie: of their places only names count."""
    return digest(_with_inputs(recipe, storage.name_of))


def _with_inputs(recipe: Recipe, place: Callable[[str], str]) -> Recipe:
    """Return the recipe with every input's place changed."""
    queries = recipe.queries
    wordnet, wikipedia = queries.wordnet, queries.wikipedia
    queries = replace(
        queries,
        custom=[place(p) for p in queries.custom],
        wordnet=wordnet and replace(wordnet, path=place(wordnet.path)),
        wikipedia=wikipedia and _placed(wikipedia, place),
    )
    sources = [
        replace(s, paths=[place(p) for p in s.paths]) if isinstance(s, WarcSource) else s
        for s in recipe.crawl.sources
    ]
    return replace(recipe, queries=queries, crawl=replace(recipe.crawl, sources=sources))


def _placed(wikipedia: WikipediaSource, place: Callable[[str], str]) -> WikipediaSource:
    return replace(
        wikipedia,
        dumps=[place(p) for p in wikipedia.dumps],
        counts=[place(p) for p in wikipedia.counts],
        title_lists=[place(p) for p in wikipedia.title_lists],
        pageviews=[place(p) for p in wikipedia.pageviews],
    )
