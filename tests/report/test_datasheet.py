"""What a data set holds, and the datasheet that tells it."""

from __future__ import annotations

import datetime as dt
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import markdown_it
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import storage, tables
from wit_builder.report import build, datasheet, facts
from wit_builder.report.folder import RunFolder
from wit_builder.report.summary import read_summary

from .conftest import Web, make_web, write_run

BY = "https://creativecommons.org/licenses/by/4.0/deed.de"
HOSTILE = "http://evil.example/|`<script>alert(1)</script>`\n# owned"
_DAY = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def _pair(pair: int) -> dict[str, Any]:
    """Return what the matched table is to say of a pair."""
    return {
        "url": f"wds:shards/0.tar/{pair}"
        if pair % 11 == 0
        else f"http://i{pair}.h{pair % 7}.co.uk/",
        "text_from": "title" if pair % 5 == 0 else "alt",
        "license": [None, BY, BY, HOSTILE][pair % 4],
        "archive": f"a{pair % 30}.wat.gz",
        "found_at": None if pair % 3 == 0 else _DAY + dt.timedelta(days=pair),
    }


def _picture(pair: int) -> dict[str, Any]:
    """Return what the image table is to say of a pair that is alive."""
    sizes = {"width": 100 + pair, "height": 256, "original_width": 300 + pair}
    sizes |= {"original_height": 900, "size_bytes": 1000 * pair}
    return sizes | {"mime": "image/png", "fetched_at": _DAY + dt.timedelta(days=1000 + pair)}


def _rewrite(url: str, change: dict[str, list[Any]]) -> None:
    table = storage.read_parquet(url)
    for name, values in change.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(
            at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
        )
    storage.write_parquet(url, table)


def _told(rows: list[dict[str, Any]], tell: Any) -> dict[str, list[Any]]:
    told = [tell(int.from_bytes(row["uid"], "big")) for row in rows]
    return {name: [row[name] for row in told] for name in told[0]} if told else {}


def write_rich_run(root: Path, web: Web) -> RunFolder:
    """Write a web's run whose tables say all that a datasheet tells, with its report."""
    job = write_run(root, web)
    run = RunFolder(str(root))
    for url in run.tables("matched"):
        _rewrite(url, _told(storage.read_parquet(url).to_pylist(), _pair))
    for url in [url for files in run.rounds("images") for url in files]:
        rows = storage.read_parquet(url).to_pylist()
        change = _told(rows, _picture)
        alive = [row["outcome"] == "alive" for row in rows]
        change = {
            n: [v if a else None for v, a in zip(c, alive, strict=True)] for n, c in change.items()
        }
        refused = [i for i, a in enumerate(alive) if not a][:4]
        change["reason"] = [row["reason"] for row in rows]
        change["opt_outs"] = [[] for _ in rows]
        for i in refused:
            change["reason"][i], change["opt_outs"][i] = (
                "opt_out_image",
                ["noai", "tdm-reservation"],
            )
        _rewrite(url, change)
    pages = [("opt_out_page", "noimageai"), ("opt_out_header", "noai, noindex"), ("no_text", None)]
    rows = [
        dict.fromkeys(tables.REJECTIONS.names) | {"stage": "extract", "reason": r, "detail": d}
        for r, d in pages
    ]
    storage.write_parquet(
        f"{root}/g0/rejected/extract-0.parquet", pa.Table.from_pylist(rows, tables.REJECTIONS)
    )
    storage.remove(f"{root}/g0/rejected/all.parquet")
    for name in ("wat-00000", "wat-00001", "tables-00002"):
        storage.publish_bytes(f"{root}/g0/candidates/{name}.arrow", b"")
    recipe = 'seed = 7\n[match]\nlanguages = ["de"]\n[fetch]\ncontact = "me@example.org"\n'
    storage.publish_bytes(f"{root}/recipe.toml", recipe.encode())
    build.run(job)
    return run


def count(run: RunFolder) -> facts.Facts:
    return facts.count(run, storage.read_parquet(run.report("balance.parquet")))


def sheet(run: RunFolder) -> str:
    rejections = storage.read_parquet(run.report("rejections.parquet"))
    return datasheet.write(read_summary(run.root), count(run), rejections)


@pytest.fixture(scope="module")
def run(web, tmp_path_factory):
    return write_rich_run(tmp_path_factory.mktemp("rich"), web)


def test_facts_of_texts_are_of_kept_pairs(run, web):
    """Licences, domains, archives and dates are those of the kept pairs and of no others."""
    found, kept = count(run), [_pair(p) for p in web.kept_by]
    assert found.pairs == len(kept)
    licenses = Counter(facts.license_name(p["license"]) for p in kept if p["license"])
    assert len(licenses) == 2
    assert dict(found.licenses.top) == licenses
    assert found.licenses.total == licenses.total()
    hosts = Counter(f"h{p % 7}.co.uk" for p in web.kept_by if p % 11)
    assert found.domains == facts.Named(
        sorted(hosts.items(), key=lambda item: (-item[1], item[0])), hosts.total(), 7
    )
    archives = Counter(p["archive"] for p in kept)
    assert (found.archives.names, found.archives.total) == (len(archives), len(kept))
    assert found.archives.top == sorted(archives.items(), key=lambda i: (-i[1], i[0]))[: facts.TOP]
    dates = [p["found_at"] for p in kept if p["found_at"]]
    assert found.not_dated == len(kept) - len(dates)
    assert found.captured == (min(dates).timestamp(), max(dates).timestamp())
    assert dict(found.text_from.top) == Counter(p["text_from"] for p in kept)
    assert found.languages == facts.Named([], 0, 0)


def test_facts_of_pictures_are_of_kept_pairs(run, web):
    """Sizes and types are those of kept pairs; the dates of fetching are of all alive ones."""
    found, kept = count(run), sorted(web.kept_by)
    assert found.pictures_measured == len(kept)
    assert found.types.top == [("image/png", len(kept))]
    sizes = found.pictures["size as downloaded, bytes (large ones to the kB)"]
    widths = found.pictures["width as downloaded, pixels"]
    assert widths[0] == 300 + kept[0]
    assert widths[3] == 300 + statistics.median_low(kept)
    assert widths[-1] == 300 + kept[-1]
    assert found.pictures["height, pixels"] == (256,) * len(facts.SPREAD)
    assert sizes[-1] == 1000 * kept[-1]
    alive = [p for p, outcome in web.outcome.items() if outcome == "alive"]
    times = [(_DAY + dt.timedelta(days=1000 + p)).timestamp() for p in (min(alive), max(alive))]
    assert found.fetched == tuple(times)


def test_facts_of_the_whole_run(run, web):
    """Queries, files, settings and opt-outs are told; what is nobody's business is not."""
    found = count(run)
    assert sum(n for _, _, n in found.queries) == len(web.queries)
    assert found.files == {"tables": 1, "wat": 2}
    assert found.settings == {"seed": "7", "match.languages": '["de"]'}
    images = sum(len(files) for files in run.rounds("images")) * 4
    assert found.opt_outs == [
        ("opt_out_header", "noai", 1),
        ("opt_out_header", "noindex", 1),
        ("opt_out_image", "noai", images),
        ("opt_out_image", "tdm-reservation", images),
        ("opt_out_page", "noimageai", 1),
    ]


def test_many_pictures_are_sampled(run, web, monkeypatch):
    """Of more pairs than are looked at, those of lowest uid are measured, and it is said."""
    shares = np.array([0, 1 << 20], np.uint64)
    monkeypatch.setattr(facts, "PICTURES", 10)
    monkeypatch.setattr(
        facts, "beginnings", lambda uids: shares[[u[-1] % 2 for u in uids.to_pylist()]]
    )
    monkeypatch.setattr(facts, "_kept", lambda _: (len(web.kept_by), shares[:1]))
    found = count(run)
    assert found.pictures_measured == sum(p % 2 == 0 for p in web.kept_by)
    text = datasheet.write(
        read_summary(run.root), found, storage.read_parquet(run.report("rejections.parquet"))
    )
    assert "a uniform sample of the" in text


def test_the_sample_is_bounded(run, web, monkeypatch, tmp_path):
    """The uids that are held are at most about as many as is said, and all where there are few."""
    assert len(facts._kept(run)[1]) == len(web.kept_by)
    rng = np.random.default_rng(3)
    uids = pa.array([rng.bytes(16) for _ in range(4000)], pa.binary(16))
    nothing = pa.array([[]] * 4000, tables.KEPT.field(1).type)
    table = pa.table([uids, nothing, nothing], schema=tables.KEPT)
    storage.write_parquet(f"{tmp_path}/g0/kept/0.parquet", table)
    monkeypatch.setattr(facts, "PICTURES", 500)
    total, begins = facts._kept(RunFolder(str(tmp_path)))
    lowest = sorted(int.from_bytes(u[:8], "big") for u in uids.to_pylist())
    assert total == 4000
    assert 400 < len(begins) < 600
    assert begins.tolist() == lowest[: len(begins)]


def test_same_tables_same_sheet(run, web, tmp_path):
    """A run elsewhere with the same tables has the same datasheet, byte for byte."""
    assert sheet(write_rich_run(tmp_path, web)) == sheet(run)


def test_the_sheet_tells_the_facts(run, web):
    """Figures stand under the headings of datasheets, as tables that markdown understands."""
    text = sheet(run)
    html = markdown_it.MarkdownIt().enable("table").render(text)
    for heading in ("Motivation", "Composition", "Collection process", "Uses", "Maintenance"):
        assert f"<h2>{heading}</h2>" in html
    assert html.count("<table>") >= 10
    assert f"{len(web.kept_by)} samples in 3 shards" in html
    assert "<td>CC BY 4.0</td>" in html
    assert "<code>match.languages</code>" in html
    assert "0123456789abcdef0123456789abcdef" in html
    assert "Their language was not detected." in html
    assert "of 7 registrable domains" in html
    assert "most frequent have" not in html
    assert f"; of {count(run).not_dated} pairs this is not known." in html
    assert "A page with two signals counts under both." in html
    assert "pictures without any text are not counted" in html
    assert "number</th>" not in html
    assert "opt-out image" in html
    assert "me@example.org" not in text
    assert run.root not in text


def test_nothing_from_the_web_is_markup(run):
    """A hostile licence URL is shown as text."""
    html = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(sheet(run))
    assert "<script" not in html
    assert "<h1>owned" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_a_sheet_of_nothing(tmp_path):
    """A run that kept nothing has a datasheet that says so."""
    job = write_run(tmp_path, make_web(0, 5, 3, 1))
    build.run(job)
    text = sheet(RunFolder(str(tmp_path)))
    assert "It is empty: no pair was kept, so there are no samples and no shards." in text
    assert "None." in text
    assert "n/a" not in text
    assert "### Pictures" not in text


@given(st.text(max_size=facts.TOP * 4))
def test_plain_text_stays_plain(text):
    """Any text, in a cell, comes out of a markdown reader as it was, printable and in one line."""
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = reader.parse(f"| a |\n| --- |\n| x{datasheet.plain(text)}x |")
    [cell] = [t for t in tokens if t.type == "inline" and t.content != "a"]
    shown = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    assert {child.type for child in cell.children or []} <= {"text", "text_special"}
    assert "".join(child.content for child in cell.children or []) == f"x{shown}x"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (BY, "CC BY 4.0"),
        ("http://www.creativecommons.org/licenses/by-nc-sa/3.0/us/", "CC BY-NC-SA 3.0 US"),
        ("https://creativecommons.org/licenses/by/2.0/legalcode.fr", "CC BY 2.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/deed.en", "Public Domain Mark 1.0"),
        ("https://Example.org/Terms/?a=1#b", "example.org/terms"),
        ("https://creativecommons.org/", "creativecommons.org"),
    ],
)
def test_licenses_have_one_name(url, name):
    """A licence has one name, however it is linked to."""
    assert facts.license_name(url) == name


@given(st.lists(st.lists(st.sampled_from("abcdefghijkl"), max_size=20)), st.integers(2, 12))
def test_tallies_in_bounded_memory(batches, limit):
    """However few names are held, a count is never too high, nor lower than is said."""
    tally = facts.Tally()
    exact = Counter(name for batch in batches for name in batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "NAMES", limit)
        for batch in batches:
            tally.add(Counter(batch).items())
            assert len(tally._counts) <= limit
    named = tally.named()
    assert named.total == exact.total()
    assert named.names in {None, len(exact)}
    for name, counted in exact.items():
        assert counted - named.missed <= dict(named.top).get(name, 0) <= counted


@given(st.lists(st.lists(st.integers(0, 500))))
def test_spreads(batches):
    """Spreads are the nearest-rank quantiles, however values are batched."""
    lengths = facts.Lengths()
    for batch in batches:
        lengths.add(pa.array([*batch, None], pa.int32()))
    values = np.array(sorted(v for batch in batches for v in batch), np.int64)
    shares = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    expected = None
    if len(values):
        expected = tuple(np.quantile(values, shares, method="inverted_cdf").tolist())
    assert lengths.spread() == expected


@given(st.lists(st.integers(0, 200_000), min_size=1))
def test_small_sizes_are_exact(values):
    """Sizes below 10 kB are told to the byte, larger ones to the kB."""
    sizes = facts.Sizes()
    sizes.add(pa.array([*values, None], pa.int64()))
    found = sizes.spread()
    assert found is not None
    for told, exact in ((found[0], min(values)), (found[-1], max(values))):
        assert told == exact if exact < facts.EXACT_BYTES else abs(told - exact) <= 500


def test_names_that_are_left_out_are_told_of(run):
    """Of more names than are listed, it is said what share the listed ones have."""
    many = facts.Named([("a.example", 3), ("b.example", 1)], 5, 3)
    found = msgspec.structs.replace(count(run), domains=many, archives=facts.Named([], 5, 1))
    rejections = storage.read_parquet(run.report("rejections.parquet"))
    text = datasheet.write(read_summary(run.root), found, rejections)
    assert "of 3 registrable domains. The 2 most frequent have" in text
    assert "found in one archive, list, shard or site. Their pages" in text


def test_facts_are_plain(run):
    """Facts can be kept as JSON, and come back the same."""
    found = count(run)
    assert msgspec.json.decode(msgspec.json.encode(found), type=facts.Facts) == found
