"""The command line: exit status, one-line errors with their fix, and nothing half-written."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.small_disk import small_disk
from tests.small_web import SmallWeb, shards_of
from wit_builder import cli, storage
from wit_builder.shards import sample

Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def wit(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command line in this process; return its exit status and the last line it said."""

    def ask(*arguments: str) -> tuple[int, str]:
        status = cli.status(list(arguments))
        said = capsys.readouterr().err.strip().splitlines()
        return status, said[-1] if said else ""

    return ask


def write(tmp_path: Path, text: str) -> str:
    place = tmp_path / "recipe.toml"
    place.write_text(text)
    return str(place)


WARC = "[[crawl.sources]]\nkind = 'warc'\npaths = ['{}']\n"
QUERIES = "fetch.contact = 'test@example.org'\n[queries]\nnumbers = 10\n"
BAD_RECIPES = {
    "unknown key": ("[match]\nmin_char = 2", r"unknown field `min_char`.*did you mean 'min_chars'"),
    "wrong type": ("seed = 'x'", r"Expected `int`.*seed"),
    "an empty list of archives": (
        "[[crawl.sources]]\nkind = 'warc'\npaths = []",
        r"needs `paths` or `listings` .*crawl\.sources",
    ),
    "no sources": (QUERIES, r"names nothing to crawl \[crawl\.sources\] -> add a"),
    "missing archive": (QUERIES + WARC.format("gone.warc.gz"), r"no such file.*gone\.warc\.gz"),
    "pattern without a match": (QUERIES + WARC.format("*.warc.gz"), r"nothing matches.*\*\.warc"),
    "missing query list": (
        "fetch.contact = 'x'\n[queries]\ncustom = ['gone.txt']\n" + WARC.format("x.warc.gz"),
        r"cannot read a custom list.*gone\.txt",
    ),
    "no query at all": (
        "fetch.contact = 'x'\n[queries]\nnumbers = 0\n" + WARC.format("x.warc.gz"),
        r"query list is empty.*->",
    ),
    "no contact for the live web": (
        "[[crawl.sources]]\nkind = 'site'\nseeds = ['http://a.test/']",
        r"anonymously.*fetch\.contact",
    ),
}


@pytest.mark.parametrize(("text", "pattern"), BAD_RECIPES.values(), ids=BAD_RECIPES.keys())
def test_a_bad_recipe_or_input_is_one_line_with_a_fix(
    wit: Ask, tmp_path: Path, text: str, pattern: str
) -> None:
    """Exit 1, and a line that says what, where, and what to do."""
    status, said = wit("build", write(tmp_path, text), "--out", str(tmp_path / "run"))
    assert status == 1
    assert re.search(pattern, said), said
    assert "->" in said
    assert said.startswith("wit: ")


WRONG = [
    ["nosuch"],
    ["build"],
    ["build", "r", "--nosuch", "1"],
    ["build", "r", "--out", ""],
    ["build", "r", "--out", "o", "--workers", "-1"],
]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_is_exit_2(wit: Ask, arguments: list[str]) -> None:
    """What the program does not know is refused with where to look."""
    status, said = wit(*arguments)
    assert status == 2
    assert said.endswith("-> wit --help")


def test_a_cluster_that_is_not_there_is_named(wit: Ask, tmp_path: Path) -> None:
    """Exit 1 with the address, not Ray's traceback."""
    recipe = write(tmp_path, QUERIES)
    there = ["--runner", "ray", "--address", "nonsense"]
    status, said = wit("queries", "build", recipe, "--out", str(tmp_path / "run"), *there)
    assert status == 1
    assert re.search(r"no Ray cluster.*\[nonsense\] ->", said), said


def test_an_archive_without_a_record_is_named(wit: Ask, tmp_path: Path) -> None:
    """A file that is no WARC, or cut short within its first record, stops its unit with a fix."""
    (tmp_path / "x.warc.gz").write_bytes(b"\x1f\x8b\x08\x00cut short")
    recipe = write(tmp_path, QUERIES + WARC.format("x.warc.gz"))
    status, said = wit("build", recipe, "--out", str(tmp_path / "run"))
    assert status == 1
    assert re.search(r"crawl-warc: 1 of 1 units failed.*x\.warc\.gz.*->", said), said
    assert not list((tmp_path / "run").rglob("*.arrow"))


def test_a_folder_where_a_file_stands_is_refused(wit: Ask, tmp_path: Path) -> None:
    """--out below a file is one line, not a traceback."""
    (tmp_path / "file").touch()
    recipe = write(tmp_path, QUERIES + WARC.format("x.warc.gz"))
    status, said = wit("build", recipe, "--out", str(tmp_path / "file" / "run"))
    assert status == 1
    assert re.search(r"cannot write.*->", said), said


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may do anything, so these tests give up its rights for a while."""
    if os.geteuid() != 0:
        yield
        return
    gc.collect()  # locks of earlier tests' pools are removed by whoever made them: root
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("as_nobody")
def test_a_folder_without_rights_is_named(wit: Ask) -> None:
    """No permission is said so, with the place."""
    status, said = wit("verify", "/proc/1/cwd")
    assert status == 1
    assert re.search(r"permission denied.*->", said), said


@pytest.mark.s3
@pytest.mark.usefixtures("s3_endpoint")
def test_no_permission_on_a_bucket_is_one_line_without_the_key(tmp_path: Path) -> None:
    """Wrong keys: exit 1, the bucket's name, no secret."""
    recipe = write(tmp_path, QUERIES + WARC.format("x.warc.gz"))
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "hush-hush"}
    command = [sys.executable, "-m", "wit_builder", "build", recipe, "--out", "s3://wit-tests/no"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"wit: cannot \w+.*s3://wit-tests/no.*->", last), last
    assert "hush" not in done.stderr


@pytest.fixture(name="small_disk")
def a_small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    with small_disk(tmp_path / "disk", "512k") as place:
        yield place


def test_a_full_disk_is_named_and_the_build_goes_on_with_more_space(
    small_web: SmallWeb, small_run: Path, small_disk: Path
) -> None:
    """Exit 1 with one line; nothing half-written; with room, the shards of an undisturbed build."""
    command = [sys.executable, "-m", "wit_builder", *small_web.command(str(small_disk))]
    full = subprocess.run(command, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert re.search(r"wit: .*the disk is full.*->", last), last
    assert not list(small_disk.rglob(".*.part"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert shards_of(str(small_disk)) == shards_of(str(small_run))


def test_verify_names_file_member_and_byte_of_a_flipped_byte(wit: Ask, tmp_path: Path) -> None:
    """One flipped bit in a picture is found, and its place told."""
    sample.main([str(tmp_path)])
    assert wit("verify", str(tmp_path))[0] == 0
    shard = tmp_path / "000001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    status = cli.status(["verify", str(tmp_path)])
    assert status == 1


def test_verify_says_which_member(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fault's line has the tar, the member and the byte where its data starts."""
    sample.main([str(tmp_path)])
    shard = tmp_path / "000001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    assert cli.status(["verify", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert re.search(r"000001\.tar: \d{9}\.jpg at byte 512", said), said
    assert said.strip().splitlines()[-1].startswith("wit: ")


def test_show_and_queries_show_tell_of_a_query(small_run: Path, tmp_path: Path) -> None:
    """A built run can be asked about its queries."""
    root = str(shutil.copytree(small_run, tmp_path / "run"))
    for arguments in (["show", root, "drawing"], ["queries", "show", root, "drawing"]):
        command = [sys.executable, "-m", "wit_builder", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "drawing" in done.stdout
    assert cli.status(["queries", "show", root]) == 0
    told = subprocess.run(
        [sys.executable, "-m", "wit_builder", "show", root, "Drawing!", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(told.stdout)["query"] == "drawing"
    assert cli.status(["report", root, "--json"]) == 0
    assert cli.status(["show", root, "no such query at all"]) == 1
    assert storage.exists(storage.join(root, "report", "index.html"))


def test_a_report_builds_nothing(
    small_web: SmallWeb, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes no settings, and does no unit that a build has left undone."""
    root = str(shutil.copytree(small_run, tmp_path / "run"))
    loopback = small_web.command(root)[-2:]
    assert cli.status(["report", root, *loopback, "--set", "balance.cap_per_query=1"]) == 1
    assert "leave --set out" in capsys.readouterr().err
    marker = next((tmp_path / "run" / "units" / "g0" / "fetch-r0").glob("*.json"))
    marker.unlink()
    asked = small_web.web.counts()
    assert cli.status(["report", root, *loopback]) == 1
    assert "fetch-r0: 1 of 3 units are not done" in capsys.readouterr().err
    assert small_web.web.counts() == asked


def test_a_list_without_a_match_gets_a_report_that_says_so(
    small_web: SmallWeb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The build fails, names the report, and the report says that no text contains a query."""
    queries, root = tmp_path / "queries.txt", tmp_path / "run"
    queries.write_text("zyzzyva quux\n")
    settings = ["--set", f'queries.custom=["{queries}"]', "--workers", "1"]
    assert cli.status([*small_web.command(str(root)), *settings]) == 1
    said = capsys.readouterr().err
    assert "no pair was kept" in said
    assert str(root / "report" / "index.html") in said
    page = (root / "report" / "index.html").read_text()
    assert "No text contains any of the queries" in page
    assert (root / "report" / "datasheet.md").exists()
    assert cli.status(["show", str(root), "zyzzyva quux"]) == 0
    assert "empty" in capsys.readouterr().out
    assert not (root / "g0" / "shards").exists()
