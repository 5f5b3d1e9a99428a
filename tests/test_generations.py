from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from msgspec.structs import replace

from tests.small_web import CAP, SmallWeb, shards_of
from wit_builder import generations, pipeline, recipe, storage, units
from wit_builder.crawl import site
from wit_builder.crawl.candidates import Output, Piece
from wit_builder.errors import RecipeError, StorageError
from wit_builder.report.summary import read_summary
from wit_builder.sections import FetchSection, Recipe, SiteSource, TablesSource
from wit_builder.shards.verify import verify


def piece(key: str, kind: str = "warc") -> Piece:
    return Piece(kind, key, [key], lambda output: output)


def names(found: list[generations.Members]) -> list[list[str | None]]:
    return [[p and p.key for p in members.pieces] for members in found]


def of_run(root: Path, keys: str, packed: str = "") -> list[list[str | None]]:
    found = generations.of_run(str(root), [piece(k) for k in keys], lambda g: g in packed.split())
    return names(found)


def test_later_archives_make_the_next_generation(tmp_path: Path) -> None:
    """They join the last generation until it has shards; then they make a new one."""
    assert of_run(tmp_path, "ab") == [["a", "b"]]
    assert of_run(tmp_path, "abc") == [["a", "b", "c"]]
    assert of_run(tmp_path, "dabc", "g0") == [["a", "b", "c"], ["d"]]
    assert of_run(tmp_path, "edabc", "g0") == [["a", "b", "c"], ["d", "e"]]
    assert of_run(tmp_path, "edabcf", "g0 g1") == [["a", "b", "c"], ["d", "e"], ["f"]]
    assert of_run(tmp_path, "fedcba", "g0 g1 g2") == [["a", "b", "c"], ["d", "e"], ["f"]]


def test_a_later_visit_makes_the_next_generation(tmp_path: Path) -> None:
    """Before there are shards it takes the place of the visit before; of new ones the last is."""

    def visits(root: Path, visit: int, packed: str = "") -> list[list[str | None]]:
        source = SiteSource(seeds=["http://a.test/"], visit=visit)
        found = [piece("x"), *site.pieces(source, FetchSection(), 1, {})]
        return names(generations.of_run(str(root), found, lambda g: g in packed.split()))

    one, two, three, four = "a.test", "a.test, visit 2", "a.test, visit 3", "a.test, visit 4"
    assert visits(tmp_path / "at once", 3) == [["x", three]]
    assert visits(tmp_path, 1) == [["x", one]]
    assert visits(tmp_path, 2) == [["x", two]]
    assert visits(tmp_path, 3, "g0") == [["x", two], [three]]
    assert visits(tmp_path, 4, "g0") == [["x", two], [four]]
    assert visits(tmp_path, 4, "g0 g1") == [["x", two], [four]]
    with pytest.raises(RecipeError, match="g1 has shards already"):
        visits(tmp_path, 3, "g0 g1")


def test_archives_that_the_recipe_drops_leave_their_place(tmp_path: Path) -> None:
    """Others keep their places, which name their units; a generation without any ends there."""
    assert of_run(tmp_path, "abc") == [["a", "b", "c"]]
    assert of_run(tmp_path, "ac") == [["a", None, "c"]]
    assert of_run(tmp_path, "acd") == [["a", None, "c", "d"]]
    for folder in ("g0", "units/g0"):
        storage.publish_bytes(str(tmp_path / folder / "x"), b"")
    assert of_run(tmp_path, "xy") == [["x", "y"]]


def test_an_unpacked_generation_without_archives_ends(tmp_path: Path) -> None:
    """What it had made is removed."""
    of_run(tmp_path, "a")
    of_run(tmp_path, "ab", "g0")
    for folder in ("g0", "g1", "units/g0", "units/g1"):
        storage.publish_bytes(str(tmp_path / folder / "x"), b"")
    assert of_run(tmp_path, "a", "g0") == [["a"]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g0", "generations.json", "units"]
    assert [p.name for p in (tmp_path / "units").iterdir()] == ["g0"]


def test_what_is_packed_loses_no_archive_in_silence(tmp_path: Path) -> None:
    """A recipe that does not name an archive of a packed generation is refused, and told how."""
    of_run(tmp_path, "ab")
    of_run(tmp_path, "abc", "g0")
    for keys in ("bc", "c", "x"):
        with pytest.raises(RecipeError, match=r"g0 has shards already.*is [a].*remove .*g0/shards"):
            of_run(tmp_path, keys, "g0")
    assert of_run(tmp_path, "abc", "g0") == [["a", "b"], ["c"]]


def test_a_moved_archive_is_known_again(tmp_path: Path) -> None:
    """Its identity tells, wherever it lies now."""
    there = [Piece("warc", f"old/{k}", [k], lambda output: output) for k in "ab"]
    generations.of_run(str(tmp_path), there, lambda _: False)
    here = [Piece("warc", f"new/{k}", [k], lambda output: output) for k in "cba"]
    found = generations.of_run(str(tmp_path), here, lambda g: g == "g0")
    assert names(found) == [["new/a", "new/b"], ["new/c"]]


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    """One place can be read as two kinds of source."""
    both = [piece("a", "wat"), piece("a", "warc")]
    assert names(generations.of_run(str(tmp_path), both, lambda _: False)) == [["a", "a"]]


def test_a_damaged_list_of_generations_is_an_error(tmp_path: Path) -> None:
    """It is not taken for an empty one, which would make all archives one generation."""
    (tmp_path / generations.FILE).write_text('[["a"]')
    with pytest.raises(StorageError, match=r"generations\.json"):
        of_run(tmp_path, "a")


def lists_of_pictures(small_run: Path, folder: Path) -> list[str]:
    """Write two lists of pictures that the small web has, some of them in both."""
    tables = sorted((small_run / "g0" / "images").rglob("*.parquet"))
    rows = pa.concat_tables([storage.read_parquet(str(p)) for p in tables])
    alive = rows.filter(pc.equal(rows["outcome"], "alive")).sort_by("uid").select(["url", "text"])
    half = alive.num_rows // 2
    places = [str(folder / f"{number}.parquet") for number in range(2)]
    storage.write_parquet(places[0], alive.slice(0, half + 10))
    storage.write_parquet(places[1], alive.slice(half - 10))
    return places


def with_lists(small_web: SmallWeb, places: list[str]) -> Recipe:
    """Return the small web's recipe with lists of pictures as its only source."""
    read = recipe.read(small_web.recipe)
    sources = [TablesSource(paths=places)]
    return replace(read, crawl=replace(read.crawl, sources=sources))


def kept_rows(root: Path, generation: str) -> list[dict[str, object]]:
    """Return a generation's kept pairs, each with the queries that keep it."""
    tables = sorted((root / generation / "kept").glob("*.parquet"))
    return [row for path in tables for row in storage.read_parquet(str(path)).to_pylist()]


def kept_pairs(root: Path, generation: str) -> list[dict[str, object]]:
    """Return what the samples of a generation's shards say of themselves."""
    images = (root / generation / "images").rglob("*.parquet")
    rows = pa.concat_tables([storage.read_parquet(str(p)) for p in sorted(images)]).to_pylist()
    by_uid = {row["uid"]: row for row in rows if row["outcome"] == "alive"}
    kept = kept_rows(root, generation)
    return [{**by_uid[row["uid"]], "kept_by": row["kept_by"]} for row in kept]


def urls_asked_for(root: Path, generation: str) -> list[str]:
    found = (root / generation / "images").rglob("*.parquet")
    rows = [row for p in found for row in storage.read_parquet(str(p)).to_pylist()]
    return sorted({row["url"] for row in rows})


def test_a_later_archive(small_web: SmallWeb, small_run: Path, tmp_path: Path) -> None:
    """What it adds stands in shards of its own, within the cap, and nothing is asked for twice."""
    root, places = tmp_path / "run", lists_of_pictures(small_run, tmp_path)

    def build(lists: int) -> None:
        run = units.Run(str(root))
        pipeline.Build(with_lists(small_web, places[:lists]), run, small_web.loopback)()

    build(1)
    before, summary = shards_of(str(root)), read_summary(str(root))
    build(2)
    assert shards_of(str(root)) == before
    first, second = kept_pairs(root, "g0"), kept_pairs(root, "g1")
    assert second
    asked = [url for g in ("g0", "g1") for url in urls_asked_for(root, g)]
    assert len(asked) == len(set(asked))
    assert not {p["url"] for p in first} & {p["url"] for p in second}
    assert not {p["sha256"] for p in first} & {p["sha256"] for p in second}
    kept_by = Counter(q for pair in [*first, *second] for q in pair["kept_by"])  # type: ignore[attr-defined]
    assert max(kept_by.values()) == CAP
    full = {q for q, n in Counter(q for p in first for q in p["kept_by"]).items() if n == CAP}  # type: ignore[attr-defined]
    assert not full & {q for pair in second for q in pair["kept_by"]}  # type: ignore[attr-defined]

    tables = [storage.list_files(str(root / g / "shards"), ".parquet") for g in ("g0", "g1")]
    samples = [url for urls in tables for url in urls if storage.name_of(url)[0].isdigit()]
    keys = pa.concat_tables([storage.read_parquet(url, ["key"]) for url in samples])["key"]
    assert sorted(keys.to_pylist()) == [f"{n:09d}" for n in range(len(first) + len(second))]

    told = read_summary(str(root))
    assert told.pairs_kept == told.dataset.samples == len(first) + len(second)
    assert told.pairs_kept > summary.pairs_kept == len(first)

    markers = {p: p.stat().st_mtime_ns for p in (root / "units").rglob("*.json")}
    build(2)
    assert {p: p.stat().st_mtime_ns for p in (root / "units").rglob("*.json")} == markers


def test_all_of_it_is_drawn_or_packed_anew(
    small_web: SmallWeb, small_run: Path, tmp_path: Path
) -> None:
    """Rebalanced and full shards hold all generations' pairs, and no picture is asked for again."""
    root, places = tmp_path / "run", lists_of_pictures(small_run, tmp_path)

    def build(lists: int, whole: generations.Whole = "") -> None:
        run = units.Run(str(root))
        pipeline.Build(with_lists(small_web, places[:lists]), run, small_web.loopback, whole)()

    build(1)
    build(2)
    asked = [url for g in ("g0", "g1") for url in urls_asked_for(root, g)]
    added = [pair["uid"] for g in ("g0", "g1") for pair in kept_rows(root, g)]
    build(2, "pack")
    full = kept_rows(root, "g2")
    assert sorted(pair["uid"] for pair in full) == sorted(added)  # type: ignore[type-var]
    assert read_summary(str(root)).dataset.samples == len(added)
    build(2, "balance")
    once = tmp_path / "once"
    recipe_of_all = with_lists(small_web, places)
    pipeline.Build(recipe_of_all, units.Run(str(once)), small_web.loopback)()
    again = {row["uid"]: row["kept_by"] for row in kept_rows(root, "g3")}
    assert again == {row["uid"]: row["kept_by"] for row in kept_rows(once, "g0")}
    more = urls_asked_for(root, "g3") if (root / "g3/images").exists() else []
    assert len(asked + more) == len(set(asked + more))
    told = read_summary(str(root))
    assert told.since == "g3"
    assert told.pairs_kept == told.dataset.samples == len(again)
    assert not verify(str(root / "g3" / "shards"), 1).faults
    before = {p: p.stat().st_mtime_ns for p in (root / "units").rglob("*.json")}
    build(2, "balance")
    assert {p: p.stat().st_mtime_ns for p in (root / "units").rglob("*.json")} == before


def test_which_generation_is_made_whole(tmp_path: Path) -> None:
    """Rebalancing takes the last generation if it is open; what is whole already stays."""

    def wholes(keys: str, packed: str, whole: generations.Whole = "") -> list[str]:
        pieces = [piece(key) for key in keys]
        found = generations.of_run(str(tmp_path), pieces, lambda g: g in packed.split(), whole)
        return [members.whole for members in found]

    assert wholes("a", "", "balance") == [""]
    assert wholes("ab", "g0") == ["", ""]
    assert wholes("ab", "g0", "balance") == ["", "balance"]
    assert wholes("ab", "g0 g1", "balance") == ["", "balance"]
    assert wholes("abc", "g0 g1") == ["", "balance", ""]
    assert wholes("abc", "g0 g1 g2", "pack") == ["", "balance", "", "pack"]
    assert wholes("abcd", "g0 g1 g2") == ["", "balance", "", "pack", ""]
    assert wholes("abcd", "g0 g1 g2 g3", "pack") == ["", "balance", "", "pack", "", "pack"]
    assert wholes("abcd", "g0 g1 g2 g3 g4 g5", "balance")[-2:] == ["pack", "balance"]


def test_what_packed_generations_stand_on_is_not_dropped(tmp_path: Path) -> None:
    """An archive of a generation without shards is refused to go while later ones have some."""
    of_run(tmp_path, "a")
    of_run(tmp_path, "ab", "g0")
    pieces = [piece("a"), piece("b")]
    generations.of_run(str(tmp_path), pieces, lambda g: g == "g0", "pack")
    with pytest.raises(RecipeError, match="g2 has shards already, and 1 archives of g1"):
        of_run(tmp_path, "a", "g0 g2")
    assert of_run(tmp_path, "ab", "g0 g2") == [["a"], ["b"], []]


def test_what_was_fetched_is_not_made_whole(tmp_path: Path) -> None:
    """An open generation that has asked for pictures keeps its rounds; another one is whole."""
    pieces = [piece("a")]
    generations.of_run(str(tmp_path), pieces, lambda _: False)
    pieces.append(piece("b"))
    made = generations.of_run(
        str(tmp_path), pieces, lambda g: g == "g0", "balance", lambda g: g == "g1"
    )
    assert [members.whole for members in made] == ["", "", "balance"]


def test_superseded_shards_may_be_removed(
    small_web: SmallWeb, small_run: Path, tmp_path: Path
) -> None:
    """After a full pack, earlier shards that were removed are not packed again."""
    root, places = tmp_path / "run", lists_of_pictures(small_run, tmp_path)
    for lists, whole in ((1, ""), (2, ""), (2, "pack")):
        run = units.Run(str(root))
        recipe_of_lists = with_lists(small_web, places[:lists])
        pipeline.Build(recipe_of_lists, run, small_web.loopback, whole)()  # type: ignore[arg-type]
    for name in ("g0", "g1"):
        shutil.rmtree(root / name / "shards")
    before = shards_of(str(root), "g2")
    pipeline.Build(with_lists(small_web, places), units.Run(str(root)), small_web.loopback)()
    assert not (root / "g0" / "shards").exists()
    assert not (root / "g1" / "shards").exists()
    assert shards_of(str(root), "g2") == before


def test_output_places() -> None:
    """A unit's candidates and rejections lie in its generation's folder."""
    assert Output.of("ROOT/g1", "wat-00000") == Output(
        "ROOT/g1/candidates/wat-00000.arrow",
        "ROOT/g1/rejected/crawl-wat-00000.parquet",
        "ROOT",
    )
