"""What a recipe can say: a frozen struct per section, every key with its default and meaning.

Each stage reads its own section, and a section's digest decides whether a unit is done. Every key
has a default that a first run can live with, apart from ``crawl.sources`` and ``fetch.contact``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

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


class ArchiveSource(_Section, frozen=True):
    """Web archives, named one by one or by a listing."""

    paths: list[str] = []
    """Files or shell patterns, local or remote (``s3://``, ``https://``); ``.gz`` or plain."""
    listings: list[str] = []
    """Files with a path a line, such as Common Crawl's ``wat.paths.gz``."""
    base: str = "https://data.commoncrawl.org/"
    """What the paths of a listing are relative to; ``s3://commoncrawl/`` within its region."""
    sample: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Share of the files to read, chosen by a hash of their paths: 0.2 has all that 0.1 has."""
    sample_seed: Natural = 0
    """Another seed chooses other files."""

    def __post_init__(self) -> None:
        """Refuse a source that names nothing; the recipe's reader says where it stands."""
        if not (self.paths or self.listings):
            raise ValueError("a source of archives needs `paths` or `listings`")


class WatSource(ArchiveSource, frozen=True, tag="wat", tag_field="kind"):
    """Links to pictures in WAT files, which Common Crawl extracts from its pages."""


class WarcSource(ArchiveSource, frozen=True, tag="warc", tag_field="kind"):
    """HTML responses of WARC files."""


class TablesSource(_Section, frozen=True, tag="tables", tag_field="kind"):
    """Lists of picture URLs with texts: LAION, CC3M, CC12M, DataComp, YFCC, or your own."""

    paths: Texts
    """Files or shell patterns, local or remote; all but parquet also as ``.gz``, ``.bz2``,
    ``.zst``."""
    format: Literal["auto", "parquet", "csv", "tsv", "jsonl", "txt"] = "auto"
    """What the files are; by default as their names end. ``txt`` is URL, tab, text."""
    columns: list[str] = []
    """Names of the columns, in order, of a ``csv`` or ``tsv`` without a line of names."""
    url: str = "url"
    """Column of the picture's URL."""
    texts: Texts = msgspec.field(default_factory=["text"].copy)
    """Columns of texts; each that is not empty makes a pair of its own."""
    page_url: str | None = None
    """Column of the page's URL."""
    license: str | None = None
    """Column of the licence's URL."""
    percent_encoded: bool = False
    """Undo percent-encoding (and ``+`` for a space) in texts, as YFCC has it."""
    only: dict[str, str] = {}
    """Take rows only whose column has that value, e.g. ``only = { marker = "0" }``."""


class WebDatasetSource(_Section, frozen=True, tag="webdataset", tag_field="kind"):
    """Tar shards that have their pictures already: to rebalance without asking anybody again."""

    paths: Texts
    """Shards, local or remote; shell patterns and braces (``{00000..00127}.tar``)."""
    pictures: list[str] = msgspec.field(default_factory=["jpg", "jpeg", "png", "webp"].copy)
    """Endings of a sample's picture, the first that it has."""
    texts: list[str] = msgspec.field(default_factory=["txt"].copy)
    """Endings of plain texts; each that is not empty makes a pair of its own."""
    metadata: str = "json"
    """Ending of the metadata; its keys, where it has them, are named below."""
    text_keys: list[str] = []
    """Keys of further texts in the metadata."""
    url_key: str = "url"
    """Key of the picture's URL; without one a name is made of shard and sample."""
    page_url_key: str = "page_url"
    """Key of the page's URL."""
    license_key: str = "license"
    """Key of the licence's URL."""


class SiteSource(_Section, frozen=True, tag="site", tag_field="kind"):
    """A live crawl from seeds, within their hosts."""

    seeds: Texts
    """Pages to start from; only links within their hosts are followed."""
    max_depth: Natural = 3
    """Links to follow from a seed; 0 reads the seeds alone."""
    max_pages: Positive = 10_000
    """Pages to ask for of each registrable domain."""
    sitemaps: bool = True
    """Read the hosts' sitemaps, too: their pages come after what the seeds link to."""
    visit: Positive = 1
    """A higher number visits again, and asks only for what changed since: see the docs."""
    warc: bool = False
    """Keep pages as WARC files (``ROOT/sites/DOMAIN/*.warc.gz``), to be read with
    ``kind = "warc"``."""


class CrawlSection(_Section, frozen=True):
    """Where candidates come from."""

    sources: list[WatSource | WarcSource | TablesSource | WebDatasetSource | SiteSource] = []
    """The ``[[crawl.sources]]`` sections, in any number; a build needs one at least."""
    max_html_bytes: Positive = 4 << 20
    """Bytes beyond which a page is rejected unread."""
    max_missing_share: Share = 0.05
    """Stop when more than this share of the files is not there; so many are only counted."""


class MatchSection(_Section, frozen=True):
    """Which texts are worth keeping, and how they are matched."""

    min_chars: Positive = 3
    """Characters below which a text is rejected."""
    max_chars: Positive = 4096
    """Characters above which a text is rejected."""
    keep_file_names: bool = False
    """Keep texts that are file names, such as ``IMG_1234.jpg``."""
    keep_boilerplate: bool = False
    """Keep texts that say nothing of the picture, such as ``image``, ``logo`` or ``click here``."""
    max_urls_per_text: Natural = 0
    """Pictures (URLs) that one text may come with before all its pairs are rejected; 0: any."""
    languages: list[str] = []
    """Languages (ISO 639) to keep, of texts that contain a query; empty: all, none is detected."""
    language_min_score: Share = 0.0
    """Score of the detected language below which a text is rejected."""


class BalanceSection(_Section, frozen=True):
    """How many pairs each query keeps."""

    method: Literal["exact", "bernoulli"] = "exact"
    """``exact``: each query draws its lowest-ranked pairs, and lost ones are made up for.

    ``bernoulli``: each (pair, query) is drawn with chance cap / matches, once (MetaCLIP's).
    """
    cap_per_query: Positive = 20_000
    """Pairs that a query keeps at most (``bernoulli``: on average); 20,000 is the CLIP paper's."""
    look_alikes: Literal["keep", "drop"] = "keep"
    """Whether, of pictures with equal perceptual hashes, all are kept or one."""
    rounds: Positive = 3
    """Rounds of asking at most; each tops up what the one before lost."""
    over_draw: Annotated[float, Meta(ge=1, le=10)] = 1.0
    """Asked for per pair wanted in the first round; later rounds use the observed survival."""


class DomainSection(_Section, frozen=True):
    """What differs for one registrable domain."""

    concurrency: Positive | None = None
    """Instead of ``per_domain_concurrency``."""
    interval_s: Annotated[float, Meta(ge=0)] | None = None
    """Instead of ``per_domain_interval_s``; a longer ``Crawl-delay`` still counts."""


class FetchSection(_Section, frozen=True):
    """How images are asked for: politely, within limits."""

    engine: Literal["wit", "img2dataset"] = "wit"
    """Who asks; ``img2dataset`` runs that package on the URLs that may be asked for: see the
    docs for which manners it lacks."""
    contact: str = ""
    """URL or e-mail address in the user agent; must be set for the live web."""
    concurrency: Positive = 64
    """Requests under way at once in each worker process."""
    per_domain_concurrency: Positive = 4
    """Requests under way at once to one registrable domain."""
    per_domain_interval_s: Annotated[float, Meta(ge=0)] = 0.25
    """Seconds between the starts of two requests to one registrable domain, at least."""
    crawl_delay_cap_s: Annotated[float, Meta(ge=0)] = 30.0
    """Seconds of a robots.txt's ``Crawl-delay`` that are honoured; a longer one counts as so
    long."""
    max_pause_s: Annotated[float, Meta(ge=0)] = 120.0
    """Seconds that a domain's pairs wait when it asks for a pause; for a longer one they are
    deferred to a later round."""
    breaker_failures: Positive = 20
    """Requests to a domain that fail in a row (no connection, too slow, 5xx) before it is left
    alone ..."""
    breaker_pause_s: Seconds = 60.0
    """... for so many seconds, and twice as long each time that the next one fails as well."""
    max_per_domain_per_round: Natural = 0
    """Pairs of one domain that a round asks for; those beyond are deferred. 0: any number."""
    domains: dict[str, DomainSection] = {}
    """Sections ``[fetch.domains."example.org"]``: what differs for a registrable domain."""
    deadline_s: Seconds = 20.0
    """Seconds that servers have for one URL, redirects and retries included; queueing is not."""
    max_body_bytes: Positive = 32 << 20
    """Bytes of a body beyond which it is not read on."""
    max_held_bytes: Positive = 256 << 20
    """Bytes of bodies and pictures that a worker holds at once; requests wait for room."""
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
    mode: Literal["keep_ratio", "center_crop", "border", "no"] = "keep_ratio"
    """``keep_ratio``: the shorter side becomes ``size_px``; ``center_crop``: of that, the centre
    square; ``border``: the longer side becomes ``size_px``, white borders make it a square;
    ``no``: sizes stay."""
    enlarge: bool = False
    """Enlarge what is smaller than that, too (the opposite of img2dataset's "only if bigger")."""
    quality: Annotated[int, Meta(ge=1, le=100)] = 95
    """JPEG quality of what is encoded anew; a JPEG that needs no change keeps its pixels."""
    max_pixels: Positive = 89_478_485
    """Pixels beyond which a picture is not decoded: Pillow's own limit against bombs. Nor is what
    would take more than 640 MiB, such as AVIF and animated WebP from about 40 million on."""
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


class BlockSection(_Section, frozen=True):
    """Lists of what must not be asked for or kept; a line each, files or shell patterns.

    For removal requests, for known abuse material, and for the pictures of test sets.
    """

    hosts: list[str] = []
    """Host names; each stands for all hosts below it, too."""
    urls: list[str] = []
    """URLs, in which ``*`` stands for anything."""
    md5: list[str] = []
    """Hex digests of bodies as downloaded."""
    sha256: list[str] = []
    """Hex digests of bodies as downloaded."""
    phash: list[str] = []
    """Perceptual hashes as in the images table: 16 hex digits."""
    phash_distance: Annotated[int, Meta(ge=0, le=16)] = 0
    """Bits by which a picture's perceptual hash may differ from a listed one."""


BLOCK_LISTS = ("hosts", "urls", "md5", "sha256", "phash")
"""Keys of ``[block]`` that name files."""


class FilterSection(_Section, frozen=True):
    """One filter between fetch and pack."""

    name: str
    """As its entry point in the group ``wit.filters`` is called."""
    options: dict[str, Any] = {}
    """What the filter is made with; its own documentation tells."""
    min: dict[str, float] = {}
    """Score -> value below which a pair is dropped."""
    max: dict[str, float] = {}
    """Score -> value above which a pair is dropped."""


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
    block: BlockSection = BlockSection()
    filters: list[FilterSection] = []
    """The ``[[filters]]`` sections, each a judge of fetched pictures and their texts."""
    pack: PackSection = PackSection()
