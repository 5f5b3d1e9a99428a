"""Pairs that are taken out of a run for good."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import s3fs

from tests.small_web import SmallWeb, shards_of
from tests.test_generations import lists_of_pictures, with_lists
from wit_builder import cli, exchange, pipeline, removal, storage, units
from wit_builder import recipe as recipes
from wit_builder.errors import RecipeError, ShardFormatError, StorageError
from wit_builder.removal import Removed
from wit_builder.removal.wanted import Entry, entry
from wit_builder.shards import tar
from wit_builder.shards.read import Dataset
from wit_builder.shards.verify import verify
from wit_builder.web.client import Client

pytestmark = pytest.mark.slow


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished build."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def build(small_web: SmallWeb, root: Path, *overrides: str, whole: Any = "") -> None:
    recipe = recipes.read(small_web.recipe, overrides)
    pipeline.Build(recipe, units.Run(str(root)), small_web.loopback, whole)()


def rows_of(root: Path, *folders: str) -> list[dict[str, Any]]:
    found = [p for f in folders for p in sorted((root / "g0" / f).rglob("*.parquet"))]
    return [row for path in found for row in pq.read_table(path).to_pylist()]


def kept(root: Path) -> list[dict[str, Any]]:
    """Return what the image tables have of kept pairs, in the order of their uids."""
    uids = {row["uid"] for row in rows_of(root, "kept")}
    images = [r for r in rows_of(root, "images") if r["uid"] in uids and r["outcome"] == "alive"]
    return sorted(images, key=lambda row: bytes(row["uid"]))


def tables(root: Path) -> Iterator[tuple[Path, pa.Table]]:
    """Yield every table of a run's generations, files between stages among them."""
    for path in sorted((*root.rglob("*.parquet"), *root.rglob("*.arrow"))):
        if path.suffix == ".parquet":
            yield path, pq.read_table(path)
        elif path.with_name(f"{path.name}.index").exists():
            index = path.with_name(f"{path.name}.index").stat().st_size // 8 - 1
            yield path, pa.concat_tables(exchange.gather([str(path)], n) for n in range(index))
        else:
            with pa.ipc.open_file(str(path)) as reader:
                yield path, reader.read_all()


def telling(root: Path, pair: dict[str, Any]) -> list[str]:
    """Return where anything tells of a pair: in a table's values, or in a tar's bytes."""
    told = [pair[name] for name in ("url", "final_url", "sha256", "md5", "phash") if pair[name]]
    told += [pair["text"]] if pair["text"].count(" ") > 2 else []
    found = []
    for path, table in tables(root):
        if path.name == "removed.parquet":
            continue
        text = json.dumps(table.to_pylist(), default=repr)
        found += [f"{path}: {value}" for value in told if value in text]
    for path in root.rglob("*.tar"):
        data = path.read_bytes()
        found += [f"{path}: {value}" for value in told if value.encode() in data]
    return found


def pictures(root: Path) -> dict[str, bytes]:
    """Return the pictures in the parts of a run, by the uid in the metadata beside them."""
    found = {}
    for path in root.glob("g0/images/*/*.tar"):
        with path.open("rb") as stream:
            bodies = [(stream.seek(m.offset), stream.read(m.size))[1] for m in tar.walk(stream)]
        for jpeg, _, metadata in zip(*[iter(bodies)] * 3, strict=True):
            found[json.loads(metadata)["uid"]] = jpeg
    return found


def test_nothing_tells_of_a_removed_pair_any_more(run: Path) -> None:
    """Its rows stay in the tables of stages, blank; its slot stays in the shards, as zeros."""
    pair, other = kept(run)[4], kept(run)[5]
    before = {path: table.num_rows for path, table in tables(run)}
    slots = Dataset.open(str(run / "g0/shards")).info
    assert telling(run, pair)
    taken = pictures(run)
    assert removal.remove(str(run), [entry("url", pair["url"])]) == Removed(1, 1)
    assert telling(run, pair) == []
    assert len(telling(run, other)) > 5
    gone = taken.pop(pair["uid"].hex())
    assert pictures(run) == taken
    assert not any(gone in path.read_bytes() for path in run.rglob("*") if path.is_file())
    shrunk = {p.parts[len(run.parts) + 1] for p, t in tables(run) if before.get(p, 0) > len(t)}
    assert shrunk == {"exchange", "kept"}
    [image] = [row for row in rows_of(run, "images") if row["uid"] == pair["uid"]]
    assert (image["outcome"], image["reason"], image["text"]) == ("dead", "removed", "")
    assert image["query_ids"] == pair["query_ids"]
    assert pair["uid"] not in {row["uid"] for row in rows_of(run, "kept")}
    assert verify(str(run / "g0/shards")).ok
    now = Dataset.open(str(run / "g0/shards"))
    assert (now.info.base, now.revision) == (slots.base, 1)
    assert not {pair["url"], pair["text"]} & {
        str(value)
        for row in pq.read_table(run / "removed.parquet").to_pylist()
        for value in row.values()
    }


@pytest.mark.parametrize("by", ["uid", "url", "host", "md5", "sha256", "phash"])
def test_pairs_are_found_by_whatever_names_them(run: Path, by: str) -> None:
    """All pairs that share it go, and only these; a dry run tells so beforehand."""
    pair = kept(run)[7]
    host = pair["url"].split("/")[2]
    value: str = {"uid": pair["uid"].hex(), "host": host}.get(by) or pair[by]
    named = {
        row["uid"]
        for path, table in tables(run)
        if path.parts[len(run.parts) + 1 :][:1] in {("candidates",), ("images",)}
        for row in table.to_pylist()
        if (row["url"].split("/")[2] == host if by == "host" else row.get(by) == pair[by])
    }
    told = removal.remove(str(run), [entry(by, value)], dry_run=True)
    assert told.samples == sum(row["uid"] in named for row in kept(run))
    assert not (run / "removed.parquet").exists()
    assert removal.remove(str(run), [entry(by, value)]) == told
    assert told.pairs == len(named)
    images = {row["uid"]: row["reason"] for row in rows_of(run, "images")}
    assert {uid for uid, reason in images.items() if reason == "removed"} == named & set(images)
    assert not {row["uid"] for row in kept(run)} & named
    assert verify(str(run / "g0/shards")).ok


def test_nothing_is_done_anew_for_a_removal(run: Path, small_web: SmallWeb) -> None:
    """The next build does nothing but the report; removing again touches no table."""
    pair = kept(run)[4]
    removal.remove(str(run), [entry("sha256", pair["sha256"])])
    shards, asked = shards_of(str(run)), small_web.web.counts()
    markers = {p: p.stat().st_mtime_ns for p in (run / "units/g0").rglob("*.json")}
    build(small_web, run)
    assert {p: p.stat().st_mtime_ns for p in (run / "units/g0").rglob("*.json")} == markers
    assert (shards_of(str(run)), small_web.web.counts()) == (shards, asked)
    balance = pq.read_table(run / "report/balance.parquet")
    by = [n for row in rows_of(run, "kept") for n in row["kept_by"]]
    assert sum(balance["kept"].to_pylist()) == len(by)
    files = {p: p.stat().st_mtime_ns for p in (run / "g0").rglob("*") if p.is_file()}
    assert removal.remove(str(run)).samples == 0
    assert {p: p.stat().st_mtime_ns for p in (run / "g0").rglob("*") if p.is_file()} == files


OTHERS = {
    "another cap": ["balance.cap_per_query=5"],
    "pictures of another size": ["image.size_px=80"],
    "shards of another size": ["pack.samples_per_shard=9"],
    "other queries": ["match.min_chars=7"],
    "fewer buckets": ["buckets=2"],
}


@pytest.mark.parametrize("overrides", OTHERS.values(), ids=OTHERS.keys())
def test_a_later_build_does_without_removed_pairs(
    run: Path, small_web: SmallWeb, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another recipe they are not asked for, not kept, and in no shard."""
    pair = kept(run)[4]
    removal.remove(str(run), [entry("uid", pair["uid"].hex())])
    asked, get = list[str](), Client.get

    async def noted(self: Client, url: str, *rest: Any, **options: Any) -> Any:
        asked.append(str(url))
        return await get(self, url, *rest, **options)

    monkeypatch.setattr(Client, "get", noted)
    build(small_web, run, *overrides)
    assert not {"", pair["url"]} & set(asked)
    assert telling(run, pair) == []
    assert pair["uid"] not in {row["uid"] for row in rows_of(run, "kept")}
    assert verify(str(run / "g0/shards")).ok
    data = Dataset.open(str(run / "g0/shards"))
    is_repacked = overrides[0].split(".")[0] != "fetch"
    assert data.info.samples == len(rows_of(run, "kept")) or not is_repacked
    assert not any(s.removed for n in range(data.info.shards) for s in data.samples(n))
    assert (
        cli.status(["show", str(run), "drawing"])
        == cli.status(["report", str(run), *_loop(small_web)])
        == 0
    )


def _loop(small_web: SmallWeb) -> list[str]:
    return ["--loopback", "=".join(next(iter(small_web.loopback.items())))]


def test_a_lost_shard_is_packed_with_all_others(run: Path, small_web: SmallWeb) -> None:
    """Keys of those after a removed pair are others now, so no shard is packed alone."""
    removal.remove(str(run), [entry("uid", kept(run)[0]["uid"].hex())])
    (run / "g0/shards/000001.tar").unlink()
    build(small_web, run)
    assert verify(str(run / "g0/shards")).ok
    assert Dataset.open(str(run / "g0/shards")).info.samples == len(kept(run))


def test_generations(small_web: SmallWeb, small_run: Path, tmp_path: Path) -> None:
    """Later archives, and all packed or drawn anew, leave out what was removed before."""
    root, places = tmp_path / "run", lists_of_pictures(small_run, tmp_path)

    def add(lists: int, whole: Any = "") -> None:
        recipe = with_lists(small_web, places[:lists])
        pipeline.Build(recipe, units.Run(str(root)), small_web.loopback, whole)()

    add(1)
    pairs = kept(root)
    removal.remove(str(root), [entry("url", pairs[0]["url"]), entry("md5", pairs[1]["md5"])])
    gone = {pairs[0]["uid"], pairs[1]["uid"]}
    first = shards_of(str(root))
    for generation, whole in (("g1", ""), ("g2", "pack"), ("g3", "balance")):
        add(2, whole)
        assert shards_of(str(root)) == first
        folder = root / generation / "shards"
        if folder.exists():
            assert verify(str(folder)).ok
            samples = [pq.read_table(p) for p in sorted(folder.glob("0*.parquet"))]
            found = pa.concat_tables(samples)
            assert not gone & set(found["uid"].to_pylist())
            assert not pc.any(found["removed"]).as_py()


KILLED = """
import os, signal, sys
from pathlib import Path
from wit_builder import removal
from wit_builder.removal.wanted import entry
root, moments, urls = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
replace = Path.replace
def kill_at(left):
    def rename(part, target):
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return replace(part, target)
    Path.replace = rename
for number, moment in enumerate(moments):
    child = os.fork()  # once what is imported is imported
    if not child:
        kill_at(int(moment))
        removal.remove(root, [] if number else [entry("url", url) for url in urls])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Removes some URLs, then what is listed; each time it is killed as a file is renamed."""


def killed(root: Path, urls: list[str], *moments: int) -> int:
    """Return how often a removal was killed, at so many files renamed each time."""
    command = [sys.executable, "-c", KILLED, str(root), ",".join(map(str, moments)), *urls]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split().count("-9")


def digests(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


def test_killed_and_finished_without_being_told_again(run: Path, tmp_path: Path) -> None:
    """SIGKILL at any moment: what is listed is finished, to the same bytes; meanwhile it shows."""
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    urls = [pair["url"] for pair in kept(run)[3:9]]
    removal.remove(str(whole), [entry("url", url) for url in urls])
    moments = random.Random(5)
    assert killed(run, urls, *(moments.randint(2, 25) for _ in range(5))) >= 3
    with pytest.raises(StorageError, match=r"not finished.*wit remove"):
        removal.refuse_unfinished(str(run))
    removal.remove(str(run))
    removal.refuse_unfinished(str(run))
    assert digests(run) == digests(whole)


def test_a_list_that_was_only_written_is_finished(run: Path) -> None:
    """A kill right after the first file loses nothing of what was asked for."""
    pair = kept(run)[3]
    assert killed(run, [pair["url"]], 1) == 1
    assert telling(run, pair)
    assert removal.remove(str(run)) == Removed(0, 1, earlier=1, is_finishing=True)
    assert telling(run, pair) == []


def test_half_packed_shards_with_a_removed_pair_go(run: Path, small_web: SmallWeb) -> None:
    """Without a manifest nothing points into them, and the build packs them anew."""
    (run / "g0/shards/dataset.json").unlink()
    (run / "units/g0/pack-finish/dataset.json").unlink()
    pair = kept(run)[4]
    assert removal.remove(str(run), [entry("url", pair["url"])]) == Removed(1, 0)
    assert telling(run, pair) == []
    build(small_web, run)
    assert verify(str(run / "g0/shards")).ok


def test_a_data_set_without_its_run(small_run: Path, tmp_path: Path) -> None:
    """By what its samples tell: URL, host, sha256, uid."""
    alone = Path(shutil.copytree(small_run / "g0/shards", tmp_path / "alone"))
    one, two, three = kept(small_run)[1:4]
    wanted = [entry("url", one["url"]), entry("sha256", two["sha256"])]
    wanted.append(entry("uid", three["uid"].hex()))
    dry = removal.remove(str(alone), wanted, dry_run=True)
    assert dry == removal.remove(str(alone), wanted)
    assert (dry.pairs, dry.samples, dry.unmatched) == (3, 3, ())
    [note] = dry.notes
    assert "redirected to a URL are not found" in note
    assert removal.remove(str(alone), wanted) == Removed(
        0, 0, unmatched=tuple(wanted), notes=(note,)
    )
    assert verify(str(alone)).ok
    host = kept(small_run)[6]["url"].split("/")[2]
    done = removal.remove(str(alone), [entry("host", host)])
    assert done.samples > 0
    assert f"redirected to {host} are not found" in done.notes[0]
    assert verify(str(alone)).ok
    left = b"".join(path.read_bytes() for path in alone.iterdir())
    assert f"//{host}/".encode() not in left


@pytest.mark.parametrize(
    ("place", "by", "error", "names"),
    [
        ("alone", "md5", RecipeError, "do not tell their md5"),
        ("alone", "phash", RecipeError, "do not tell their phash"),
        ("run/g0/shards", "uid", RecipeError, r"belong to a run.*wit remove .*run \.\.\."),
        ("nowhere", "uid", ShardFormatError, "no data set of shards"),
    ],
)
def test_where_nothing_can_be_removed(
    run: Path, place: str, by: str, error: type[Exception], names: str
) -> None:
    """The shards of a run alone, or by what a data set does not tell; nothing is written."""
    alone = Path(shutil.copytree(run / "g0/shards", run.parent / "alone"))
    before = digests(run), digests(alone)
    value = {"phash": "0" * 16}.get(by, "0" * 32)
    with pytest.raises(error, match=names):
        removal.remove(str(run.parent / place), [Entry(by, value)])
    assert (digests(run), digests(alone)) == before


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options and a file name pairs; a dry run changes nothing; wrong values are one line."""
    one, two = kept(run)[:2]
    place = tmp_path / "list.txt"
    place.write_text(f"# asked for in a letter\nurl {two['url']}\n")
    command = ["remove", str(run), "--uid", one["uid"].hex(), "--list", str(place), "--json"]
    before = digests(run)
    assert cli.status([*command, "--dry-run"]) == 0
    assert digests(run) == before
    assert cli.status(command) == 0
    said = capsys.readouterr()
    dry, done = (json.loads(line) for line in said.out.splitlines())
    assert dry == done
    assert done["samples"] == 2 <= done["pairs"]  # some pictures have several texts
    assert not said.err
    before = digests(run)
    for wrong in (["--sha256", "abc"], ["--host", "com"], ["--url", "x"]):
        assert cli.status(["remove", str(run), *wrong]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("wit: not ")
    assert digests(run) == before


def test_what_is_not_there_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call counts the pairs that it names, not all that were ever listed; exit status 0."""
    gone, pair = kept(run)[:2]
    removal.remove(str(run), [entry("uid", gone["uid"].hex())])
    place = tmp_path / "list.txt"
    place.write_text(f"uid {gone['uid'].hex()}  # again\nhost nowhere.example\n")
    command = ["remove", str(run), "--md5", pair["md5"], "--url", "http://nowhere.example/a"]
    command += ["--list", str(place)]
    missed = [
        "--url http://nowhere.example/a",
        f"{place} line 1: uid {gone['uid'].hex()}",
        f"{place} line 2: host nowhere.example",
    ]
    assert cli.status([*command, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    named = told["pairs"]
    assert told["unmatched"] == missed
    assert 1 <= told["samples"] <= named
    assert cli.status(command) == 0
    first, count, *lines = capsys.readouterr().out.splitlines()
    assert first == f"pairs removed: {named}; samples zeroed: {told['samples']}"
    assert count == "not there, or not any more: 3 of what was asked for"
    assert lines == [f"  {said}" for said in missed]
    assert cli.status(["remove", str(run)]) == 0
    assert capsys.readouterr().out == "pairs removed: 0; samples zeroed: 0\n"


def test_what_a_data_set_does_not_tell_is_said(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host of redirects cannot be found in shards alone: a note in JSON and on stderr."""
    alone = Path(shutil.copytree(small_run / "g0/shards", tmp_path / "alone"))
    command = ["remove", str(alone), "--host", "nowhere.example"]
    assert cli.status(command) == 0
    said = capsys.readouterr()
    assert "--host nowhere.example" in said.out
    assert "redirected to nowhere.example are not found; remove them in the run" in said.err
    assert cli.status([*command, "--json"]) == 0
    [note] = json.loads(capsys.readouterr().out)["notes"]
    assert note in said.err


def test_nothing_to_remove_is_said(run: Path) -> None:
    """A run without a list, and no option: there is nothing that could be meant."""
    with pytest.raises(RecipeError, match="nothing is listed"):
        removal.remove(str(run))


@pytest.mark.s3
def test_a_run_in_a_bucket(small_web: SmallWeb, small_run: Path, s3_folder: str) -> None:
    """On a real S3 server a pair goes as it does on disk."""
    # a build in a bucket has the same bytes: see test_pipeline
    bucket = s3fs.S3FileSystem()
    bucket.put(f"{small_run}/", f"{s3_folder}/", recursive=True)
    images = storage.list_files(f"{s3_folder}/g0/images/r0", ".parquet")
    rows = pa.concat_tables([storage.read_parquet(url) for url in images]).to_pylist()
    url = next(row["url"] for row in rows if row["outcome"] == "alive")
    assert removal.remove(s3_folder, [entry("url", url)]).pairs == 1
    rows = pa.concat_tables([storage.read_parquet(u) for u in images]).to_pylist()
    assert [row["reason"] for row in rows].count("removed") == 1
    assert url not in {row["url"] for row in rows}
    assert verify(f"{s3_folder}/g0/shards").ok
    shards = shards_of(s3_folder)
    markers = _written(bucket, f"{s3_folder}/units/g0")
    small_web.build(s3_folder)
    assert shards_of(s3_folder) == shards
    assert _written(bucket, f"{s3_folder}/units/g0") == markers


def _written(bucket: s3fs.S3FileSystem, folder: str) -> dict[str, object]:
    """Return when each object below a folder was written."""
    bucket.invalidate_cache()
    found = bucket.find(folder, detail=True)
    assert len(found) > 100
    return {name: about["LastModified"] for name, about in found.items()}


def test_pages_that_a_crawl_remembers_lose_the_picture(run: Path) -> None:
    """Else a page that has not changed would bring its pair again; all its others stay."""

    def remembered() -> list[str]:
        pages = [
            row
            for p in sorted(run.glob("sites/*/*.parquet"))
            for row in pq.read_table(p).to_pylist()
        ]
        return [text for row in pages for text in row["texts"]]

    [text, *_] = [
        p["text"]
        for p in kept(run)
        if remembered().count(p["text"]) == 1 and p["text"].count(" ") > 2
    ]
    before = remembered()
    pair = next(p for p in kept(run) if p["text"] == text)
    removal.remove(str(run), [entry("uid", pair["uid"].hex())])
    before.remove(text)
    assert remembered() == before
