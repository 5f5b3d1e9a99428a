"""A page of 500,000 queries in a real browser: all of them are there, and found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from playwright.sync_api import expect

from wit_builder import tables
from wit_builder.report import build
from wit_builder.report.count import Counts
from wit_builder.report.page import render, status_counts
from wit_builder.report.summary import Packed, Summary

from .browser import NEEDED, column, numbers, opened

pytestmark = NEEDED

ROWS = 500_000


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Path, pa.Table]:
    """A page of 500,000 queries in no order, and its balance table."""
    rng = np.random.default_rng(3)
    names = [f"{'übung' if i % 9 == 0 else 'word'} {i:x} of {i % 997}" for i in range(ROWS)]
    matched = rng.permutation((5e9 / np.arange(1, ROWS + 1) ** 1.6).astype(np.int64))
    kept = np.minimum(matched, 1 + rng.integers(0, 20_000, ROWS))
    counts = Counts(matched, matched, kept, kept, kept, matched, matched[None])
    source = np.array(["unigram", "title"])[rng.integers(0, 2, ROWS)]
    queries = {"query_id": pa.array(range(ROWS), pa.int32()), "query": names, "source": source}
    balance = build.balance_table(pa.table(queries), counts, 20_000)
    summary = Summary(
        title="large",
        recipe_digest="",
        generation="g0",
        cap_per_query=20_000,
        queries=ROWS,
        statuses=status_counts(balance["status"]),
        funnel=[],
        rounds=[],
        dataset=Packed(0, 0, 0),
        pairs_kept=int(kept.sum()),
    )
    lost = pa.table({"stage": [], "reason": [], "count": []})
    place = tmp_path_factory.mktemp("large") / "index.html"
    place.write_text(render(summary, balance, lost))
    return place, balance


def test_all_of_500000_queries_are_there(browser, large):
    """Search, filters and sorts over half a million queries give what Arrow gives; below 12 MB."""
    place, balance = large
    assert place.stat().st_size <= 12_000_000
    assert balance.schema.equals(tables.BALANCE)
    with opened(browser, place) as page:
        expect(page.locator("#found")).to_have_text("500,000 queries")
        most = balance.sort_by([("matched", "descending")]).slice(0, 5)
        assert numbers(page, 2)[:5] == most["matched"].to_pylist()  # the first is above 2**32
        for needle in ("e", "ÜBUNG", " of 99", "word 1e"):
            page.get_by_label("Search").fill(needle)
            found = balance.filter(pc.match_substring(balance["query"], needle.strip().lower()))
            said = f"{len(found):,} of 500,000 queries"
            expect(page.locator("#found")).to_have_text(said if len(found) < ROWS else said[:15])
            best = found.sort_by([("matched", "descending"), ("query", "ascending")])
            assert column(page, 1) == best["query"].slice(0, 50).to_pylist()
        page.locator("#filters").get_by_label("Source").select_option(label="title")
        page.locator("#filters").get_by_label("Status").select_option(label="exhausted")
        kept = page.locator("#table").get_by_role("button", name="Kept")
        kept.click()
        kept.click()
        mine = pc.and_(pc.equal(found["source"], "title"), pc.equal(found["status"], "exhausted"))
        least = found.filter(mine).sort_by([("kept", "ascending"), ("query", "ascending")])
        expect(page.locator("#found")).to_have_text(f"{len(least):,} of 500,000 queries")
        assert column(page, 1) == least["query"].slice(0, 50).to_pylist()
        assert numbers(page, 5) == least["kept"].slice(0, 50).to_pylist()
