from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from wit_builder import pipeline, recipe, storage, units

RECIPE = """
buckets = 2

[queries]
numbers = 0
custom = ["queries.txt"]

[match]
keep_boilerplate = true

[[crawl.sources]]
kind = "warc"
paths = ["{folder}/*.warc"]

[[crawl.sources]]
kind = "wat"
paths = ["{folder}/*.wat"]
"""


def candidates(root: Path, kind: str) -> set[tuple[str, str]]:
    """Return URL and alt of the pictures that one kind of source found on one page."""
    (place,) = (root / "g0" / "candidates").glob(f"{kind}-*.arrow")
    found = pa.concat_tables(storage.read_batches(str(place))).to_pylist()
    page = "http://0pointer.de/photos/?gallery=Australia&photo=496"
    return {
        (row["url"], row["text"])
        for row in found
        if row["page_url"] == page and row["text_from"] == "alt"
    }


def test_real_files_go_through(common_crawl_dir: Path, tmp_path: Path) -> None:
    """A crawl's WARC and WAT files tell the same of a page, and their pairs are matched once."""
    (tmp_path / "queries.txt").write_text("Creative Commons\nnext\nAustralia\n")
    place = tmp_path / "recipe.toml"
    place.write_text(RECIPE.format(folder=common_crawl_dir))
    root = tmp_path / "run"
    pipeline.Build(recipe.read(str(place)), units.Run(str(root)))("match")

    assert candidates(root, "wat") == candidates(root, "warc") != set()
    tables = [storage.read_parquet(str(p)) for p in sorted((root / "g0/matched").glob("*.parquet"))]
    matched = pa.concat_tables(tables).to_pylist()
    pairs = [(row["url"], row["text"]) for row in matched]
    picture = "http://creativecommons.org/images/public/somerights20.png"
    assert pairs.count((picture, "Creative Commons License")) == 1
    assert len({url for url, _ in pairs}) == len(pairs)
    (row,) = [row for row in matched if row["url"] == picture]
    assert row["query_ids"] == [0]
    assert row["license"] == "http://creativecommons.org/licenses/by-sa/3.0/"
