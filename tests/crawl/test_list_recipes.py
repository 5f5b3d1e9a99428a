"""The recipes for public lists, each on a small file that is laid out as the real one is."""

from __future__ import annotations

import bz2
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from tests.conftest import REPOSITORY
from wit_builder import recipe, storage
from wit_builder.crawl import lists
from wit_builder.crawl.candidates import Output
from wit_builder.sections import TablesSource

URL = "https://example.org/owl.jpg"


def source_of(name: str, *overrides: str) -> TablesSource:
    """Return the one source of a recipe."""
    [source] = recipe.read(
        str(REPOSITORY / "queries" / "recipes" / f"{name}.toml"), overrides
    ).crawl.sources
    assert isinstance(source, TablesSource)
    return source


def candidates(source: TablesSource, place: Path, **changes: Any) -> list[dict[str, Any]]:
    """Return what a recipe's source finds in a file of that name, without a single rejection."""
    pattern = storage.name_of(source.paths[0])
    assert place.match(pattern) or changes, f"the recipe looks for {pattern}"
    [piece] = lists.pieces(replace(source, paths=[str(place)], **changes))
    output = Output.of(str(place.parent), "u")
    lists.run(piece.job(output))
    assert pq.read_table(output.rejections).num_rows == 0
    return [row for table in storage.read_batches(output.candidates) for row in table.to_pylist()]


def pairs(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["url"], row["text"]) for row in rows]


def table_at(place: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), place, compression="snappy")
    return place


@pytest.mark.parametrize(
    ("columns", "changes"),
    [
        ({"url": [URL], "caption": ["An owl"], "similarity": [0.3], "punsafe": [0.0]}, {}),
        (
            {
                "SAMPLE_ID": [1.0], "URL": [URL], "TEXT": ["An owl"], "HEIGHT": [10.0],
                "WIDTH": [10.0], "LICENSE": ["?"], "NSFW": ["UNLIKELY"], "similarity": [0.3],
            },
            {"url": "URL", "texts": ["TEXT"], "license": "LICENSE"},
        ),
    ],
    ids=["Re-LAION-5B", "LAION-400M"],
)  # fmt: skip
def test_laion(tmp_path, columns, changes):
    """The recipe reads Re-LAION-5B, and LAION-400M with the names that its comment tells."""
    place = table_at(tmp_path / "part-00000-c000.snappy.parquet", columns)
    rows = candidates(source_of("laion"), place, **changes)
    assert pairs(rows) == [(URL, "An owl")]
    assert rows[0]["license"] is None


def test_cc3m(tmp_path):
    """Conceptual Captions is caption, tab, URL, without a line of names."""
    place = tmp_path / "Train_GCC-training.tsv"
    place.write_text(f'an owl , seen " at night\t{URL}\n')
    assert pairs(candidates(source_of("cc3m"), place)) == [(URL, 'an owl , seen " at night')]


def test_cc12m(tmp_path):
    """Conceptual 12M is URL, tab, caption, without a line of names."""
    place = tmp_path / "cc12m.tsv"
    place.write_text(f"{URL}\tAn owl, by <PERSON>\n")
    assert pairs(candidates(source_of("cc12m"), place)) == [(URL, "An owl, by <PERSON>")]


def test_datacomp(tmp_path):
    """DataComp's pools are parquet files with url and text among their columns."""
    columns = {
        "uid": ["0" * 32], "url": [URL], "text": ["An owl"], "original_width": [640],
        "original_height": [480], "clip_b32_similarity_score": [0.3],
        "clip_l14_similarity_score": [0.2], "face_bboxes": [[[0.1, 0.1, 0.2, 0.2]]],
        "sha256": ["0" * 64],
    }  # fmt: skip
    place = table_at(tmp_path / "00000000.parquet", columns)
    assert pairs(candidates(source_of("datacomp"), place)) == [(URL, "An owl")]


def yfcc_line(title: str, description: str, marker: str) -> list[str]:
    """Return the 25 fields of a line."""
    return [
        "0", "6985418911", "4e2f7a26a1dfbf165a7e30bdabf7e72a", "39089491@N00", "nick+name",
        "2012-02-16 09:56:37.0", "1331840483", "Canon+PowerShot+ELPH+310+HS", title, description,
        "canon,canon+powershot", "", "-81.804885", "24.550558", "12",
        "http://www.flickr.com/photos/39089491@N00/6985418911/",
        "http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg",
        "Attribution-NonCommercial License", "http://creativecommons.org/licenses/by-nc/2.0/",
        "7205", "8", "df7747990d", "692d7e0a7f", "jpg", marker,
    ]  # fmt: skip


@pytest.mark.parametrize("release", ["one file", "ten files"])
def test_yfcc(tmp_path, release):
    """YFCC100M's photos have title and description, decoded; its videos are left out."""
    lines = [yfcc_line("Barn+owl", "Seen+at+%22Key+West%22", "0"), yfcc_line("An+owl", "", "1")]
    changes: dict[str, Any] = {}
    source = source_of("yfcc")
    if release == "ten files":
        lines = [[*fields[1:2], *fields[3:]] for fields in lines]
        changes = {"columns": [c for c in source.columns if c not in ("line", "hash")]}
    place = tmp_path / "yfcc100m_dataset.bz2"
    place.write_bytes(bz2.compress("".join("\t".join(f) + "\n" for f in lines).encode()))
    rows = candidates(source, place, **changes)
    picture = "http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg"
    assert pairs(rows) == [(picture, "Barn owl"), (picture, 'Seen at "Key West"')]
    assert {row["license"] for row in rows} == {"http://creativecommons.org/licenses/by-nc/2.0/"}
    assert {row["page_url"] for row in rows} == {
        "http://www.flickr.com/photos/39089491@N00/6985418911/"
    }
