"""Test sets of every kind, as they lie on disk, and what is wrong with some."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch.utils.data
from clip_benchmark import webdataset_builder
from clip_benchmark.datasets.builder import build_wds_dataset
from PIL import Image

from tests import foreign_tar
from tests.train.conftest import pair
from wit_builder import storage
from wit_builder.errors import GoneError, StorageError, TrainingError
from wit_builder.progress import Silent
from wit_builder.runners import InProcess
from wit_builder.shards import removal
from wit_builder.shards.index import Asked, index, members
from wit_builder.shards.manifest import finish
from wit_builder.shards.write import Pair, write_shard
from wit_train.evaluate import naming
from wit_train.evaluate.sets import TestSet, opened

Content = str | bytes


def put(root: Path, files: dict[str, Content]) -> str:
    """Write files below a folder; return it."""
    for name, content in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(root)


def tar(*samples: Mapping[str, Content]) -> bytes:
    """Return a tar of samples, each of members by ending; keys count from s0 on."""
    return foreign_tar.tar_of(
        (f"s{number}.{ending}", content.encode() if isinstance(content, str) else content)
        for number, sample in enumerate(samples)
        for ending, content in sample.items()
    )


def labelled(*labels: int) -> bytes:
    """Return a tar of pictures with such labels."""
    return tar(*({"cls": str(label), "png": f"picture of {label}"} for label in labels))


def folder(root: Path) -> str:
    return put(root, {f"{c}/{n}.png": f"{c}{n}" for c in ("owl", "red apple") for n in range(4)})


def a_list(root: Path) -> str:
    lines = [f"{n}.png\t{'owl' if n % 3 else 'ox'}\n" for n in range(7)]
    put(root, {f"{n}.png": f"picture {n}" for n in range(7)})
    return put(root, {"list.tsv": "".join(lines)}) + "/list.tsv"


def tars(root: Path) -> str:
    return put(
        root,
        {
            "classnames.txt": "owl\nox\n",
            "zeroshot_classification_templates.txt": "a {c}\nthe {c}\n",
            "test/nshards.txt": "2\n",
            "test/0.tar": labelled(0, 1, 1),
            "test/1.tar": labelled(1, 0),
        },
    )


def asked_for(number: int, *queries: str, caption: str = "") -> Pair:
    """Return a sample with such queries."""
    made = pair(number, f"picture {number}".encode())
    told = msgspec.structs.replace(
        made.metadata, queries=[*queries], caption=caption or made.metadata.caption
    )
    return Pair(made.key, made.jpg, told)


def shards(root: Path, pairs: Iterable[Pair] = ()) -> str:
    """Write shards of two samples a block."""
    made = list(pairs) or [asked_for(n, "owl" if n % 2 else "ox") for n in range(7)]
    write_shard(str(root), 0, made[:4], 5 << 10)
    write_shard(str(root), 1, made[4:], 5 << 10)
    finish(str(root), 2, generation="g0", recipe="0", max_block_bytes=5 << 10)
    return str(root)


KINDS = {kind.__name__: kind for kind in (folder, a_list, tars, shards)}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def said(found: TestSet) -> list[tuple[str, str]]:
    """Return the pictures by name, with what their classes are called."""
    return [(item.name, found.classes[item.target]) for item in found.items()]


# --- what holds for every kind ------------------------------------------------


@each_kind
@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_ranks_share_a_set(kind: Callable[[Path], str], world_size: int, tmp_path: Path) -> None:
    """Every item is on one rank, by ascending index, and the same as without ranks."""
    found = opened(kind(tmp_path))
    whole = {i.index: (i.name, i.read(), i.target) for i in found.items()}
    ranks = [list(found.items(rank, world_size)) for rank in range(world_size)]
    assert all(part == sorted(part, key=lambda item: item.index) for part in ranks)
    items = [item for part in ranks for item in part]
    assert len(items) == len(whole)
    assert {i.index: (i.name, i.read(), i.target) for i in items} == whole


@each_kind
def test_pictures_can_be_had_again(kind: Callable[[Path], str], tmp_path: Path) -> None:
    """By index come the bytes that the items had; indices beyond the set have none."""
    found = opened(kind(tmp_path))
    wanted = {item.index: item.read() for item in found.items() if item.index in {1, 4}}
    assert found.pictures([4, 1, 99]) == wanted
    assert found.pictures([]) == {}
    assert len(wanted) == 2


@each_kind
def test_a_bucket_is_as_good_as_a_disk(
    kind: Callable[[Path], str], tmp_path: Path, s3_folder: str
) -> None:
    """The same set in a bucket has the same items."""
    local = kind(tmp_path)
    for file in tmp_path.rglob("*.*"):
        name = str(file.relative_to(tmp_path))
        storage.publish_bytes(storage.join(s3_folder, name), file.read_bytes())
    far = opened(local.replace(str(tmp_path), s3_folder))
    near = opened(local)
    assert far.classes == near.classes
    assert [(i.index, i.name, i.read()) for i in far.items()] == [
        (i.index, i.name, i.read()) for i in near.items()
    ]


class _Web(ThreadingHTTPServer):
    """A web server that knows nothing of ranges."""

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that asked for a range leaves when it gets all."""


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of the test's folder on a web server."""
    with _Web(("127.0.0.1", 0), partial(_Silent, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", [a_list, tars])
def test_the_web_is_read_where_nothing_must_be_listed(
    kind: Callable[[Path], str], tmp_path: Path, web: str
) -> None:
    """A list and clip_benchmark's layout name all their files."""
    local = kind(tmp_path)
    far, near = opened(local.replace(str(tmp_path), web)), opened(local)
    assert [(i.name, i.read()) for i in far.items()] == [(i.name, i.read()) for i in near.items()]


def test_large_tars_need_a_server_with_ranges(tmp_path: Path, web: str) -> None:
    """The error says to download them."""
    tars(tmp_path)
    put(tmp_path, {"test/1.tar": tar({"cls": "0", "png": bytes(9 << 20)})})
    items = opened(web).items()
    with pytest.raises(StorageError, match="not serve ranges"):
        list(items)


# --- a folder of class folders --------------------------------------------------


def test_folders_are_classes(tmp_path: Path) -> None:
    """They are sorted, one without pictures is one too; other files are counted, hidden not."""
    files = {"zebra/2.PNG": "", "zebra/1.jpg": "", "owl/1.webp": "", ".git/1.png": ""}
    others: dict[str, Content] = {
        "owl/notes.txt": "",
        "owl/.1.png": "",
        "README": "",
        "ox/x.db": "",
    }
    found = opened(put(tmp_path, {**files, **others, "templates.txt": "a {}\n\nthe {}\n"}))
    assert found.classes == ["owl", "ox", "zebra"]
    assert said(found) == [
        ("owl/1.webp", "owl"),
        ("zebra/1.jpg", "zebra"),
        ("zebra/2.PNG", "zebra"),
    ]
    assert found.templates == ["a {}", "the {}"]
    assert found.left_out == {"not a picture by its name": 2}
    assert list(found.items(1, 2))
    assert found.left_out == {}  # the first rank has told


def test_links_are_followed(tmp_path: Path) -> None:
    """Linked folders and pictures count; a link that leads nowhere is found when it is read."""
    put(tmp_path / "there", {"owl/1.png": "an owl"})
    put(tmp_path / "set", {"ox/1.png": "an ox"})
    (tmp_path / "set/owl").symlink_to(tmp_path / "there/owl")
    (tmp_path / "set/ox/2.png").symlink_to(tmp_path / "nowhere.png")
    first, second, third = opened(str(tmp_path / "set")).items()
    assert (first.read(), second.read()) == (b"an owl", b"an ox")
    with pytest.raises(GoneError):
        third.read()


def test_folders_in_class_folders_belong_to_the_class(tmp_path: Path, s3_folder: str) -> None:
    """At any depth, on disk and in a bucket; pictures beside class folders are counted."""
    names = ["owl/a/b/1.png", "owl/2.png", "owl/.a/3.png", "owl/a/.4.png", "ox/1.png", "5.png"]
    place = put(tmp_path, dict.fromkeys(names, "a picture"))
    for name in names:
        storage.publish_bytes(storage.join(s3_folder, name), b"a picture")
    for found in (opened(place), opened(s3_folder)):
        assert said(found) == [("owl/2.png", "owl"), ("owl/a/b/1.png", "owl"), ("ox/1.png", "ox")]
        assert found.left_out == {"in no class folder": 1}


def test_links_in_circles_end(tmp_path: Path) -> None:
    """A link to a folder that it is in, or to itself, leads no further."""
    put(tmp_path, {"owl/a/1.png": "", "ox/1.png": ""})
    (tmp_path / "owl/a/up").symlink_to(tmp_path / "owl")
    (tmp_path / "ox/root").symlink_to(tmp_path)
    (tmp_path / "ox/itself").symlink_to(tmp_path / "ox/itself")
    found = opened(str(tmp_path))
    assert [item.name for item in found.items()] == ["owl/a/1.png", "ox/1.png"]
    assert found.left_out == {"not a picture by its name": 1}


def test_folders_may_be_named_in_classes_json(tmp_path: Path) -> None:
    """It gives order and names, also of classes without a picture; so does ``names``."""
    named = {"red apple": "apple", "none": "nothing", "owl": "an owl"}
    place = folder(tmp_path)
    put(tmp_path, {"classes.json": json.dumps(named)})
    found = opened(place)
    assert found.classes == ["apple", "nothing", "an owl"]
    assert [item.target for item in found.items()] == [2] * 4 + [0] * 4
    put(tmp_path, {"names.txt": "red apple\nowl\n"})
    assert opened(place, f"{place}/names.txt").classes == ["red apple", "owl"]


def test_a_thousand_wnids_are_imagenet(tmp_path: Path) -> None:
    """In sorted order they are the classes of open_clip; other folders are not taken for them."""
    place = put(tmp_path, {f"n{7 * n:08d}/1.png": "" for n in range(1000)})
    found = opened(place, "imagenet")
    assert said(found)[:2] == [("n00000000/1.png", "tench"), ("n00000007/1.png", "goldfish")]
    with pytest.raises(TrainingError, match="2 classes such as 'owl', and not ImageNet's 1000"):
        opened(folder(tmp_path / "other"), "imagenet")


# --- a list ---------------------------------------------------------------------


def test_a_list_names_pictures_and_classes(tmp_path: Path) -> None:
    """Relative places start from the file; a line said twice is noted, nothing is left out."""
    elsewhere = put(tmp_path / "elsewhere", {"o.png": "an owl"})
    lines = f"a/1.png\tred apple\n\n{elsewhere}/o.png\towl\r\na/1.png\tred apple\n"
    put(tmp_path, {"a/1.png": "an apple", "list.tsv": "\ufeff" + lines})
    found = opened(str(tmp_path / "list.tsv"))
    assert said(found) == [("a/1.png", "red apple"), (f"{elsewhere}/o.png", "owl")]
    assert [item.read() for item in found.items()] == [b"an apple", b"an owl"]
    assert found.left_out == {}
    assert found.notes == ["lines of the list that repeat others: 1"]


def test_a_list_gathers_captions(tmp_path: Path) -> None:
    """All lines of a picture are its captions, wherever they stand."""
    lines = "1.png\tan owl\n2.png\ta fox\n1.png\ta bird\twith a tab\n"
    put(tmp_path, {"list.tsv": lines, "1.png": "1", "2.png": "2"})
    found = opened(str(tmp_path / "list.tsv"), captions=True)
    assert [(i.name, i.target, i.texts) for i in found.items()] == [
        ("1.png", -1, ("an owl", "a bird\twith a tab")),
        ("2.png", -1, ("a fox",)),
    ]
    assert found.classes == []


# --- clip_benchmark's layout ------------------------------------------------------


def test_tars_have_classes_and_prompts(tmp_path: Path) -> None:
    """The set's folder stands for its test split; a split can be named; so can the classes."""
    place = tars(tmp_path)
    put(tmp_path, {"train/nshards.txt": "1", "train/0.tar": labelled(1)})
    found = opened(place)
    assert (found.classes, found.templates) == (["owl", "ox"], ["a {c}", "the {c}"])
    assert said(found)[2:4] == [("0.tar/s2", "ox"), ("1.tar/s0", "ox")]
    assert [item.read() for item in found.items()][-1] == b"picture of 0"
    assert said(opened(f"{place}/train/")) == [("0.tar/s0", "ox")]
    put(tmp_path, {"names.json": '{"ox": "an ox", "owl": "a bird"}', "names.txt": "same\nsame\n"})
    assert opened(place, f"{place}/names.json").classes == ["a bird", "an ox"]
    assert opened(place, f"{place}/names.txt").classes == ["same", "same"]
    put(tmp_path, {"numbers.json": '{"0": "zero", "1": "one"}'})
    assert opened(place, f"{place}/numbers.json").classes == ["zero", "one"]


def test_samples_that_lack_a_member_are_counted(tmp_path: Path) -> None:
    """They keep their place in the set, and each rank counts its own."""
    tars(tmp_path)
    samples: list[dict[str, Content]] = [{"cls": "0"}, {"jpg": ""}, {"jpeg": "a", "cls": " 1\n"}]
    put(tmp_path, {"test/0.tar": tar(*samples)})
    found = opened(str(tmp_path))
    assert [(i.index, i.target) for i in found.items()] == [(2, 1), (3, 1), (4, 0)]
    assert found.left_out == {"no picture": 1, "no label": 1}
    assert list(found.items(1, 2))
    assert found.left_out == {"no label": 1}


class _Listed(list[Any]):
    """A data set as clip_benchmark's converter takes it."""

    classes = ("owl", "ox", "red apple")
    templates = ("a {c}",)


def drawn(number: int) -> Image.Image:
    """Return a picture that its number tells."""
    return Image.fromarray(np.full((4, 4, 3), 10 * number, np.uint8))


@pytest.mark.filterwarnings("ignore")  # of webdataset, about files it leaves open
@pytest.mark.parametrize("converter", ["convert_dataset", "convert_retrieval_dataset"])
def test_what_clip_benchmark_writes_is_read_as_it_does(
    converter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items come in the order, and with the labels and captions, that clip_benchmark reads."""
    captions = converter == "convert_retrieval_dataset"
    answers = [[f"caption {n}", "another\nline"] if captions else n % 3 for n in range(5)]
    data = _Listed((drawn(n), answer) for n, answer in enumerate(answers))
    transform = webdataset_builder.PIL_to_bytes("webp")
    options = {"transform": transform, "max_count": 2, "verbose": False}
    with monkeypatch.context() as patch:  # it would start eight processes
        patch.setattr(torch.utils.data, "DataLoader", lambda dataset, **_: dataset)
        getattr(webdataset_builder, converter)(data, "test", str(tmp_path), **options)
    peer = build_wds_dataset("ours", shade, data_dir=str(tmp_path))
    found = opened(str(tmp_path), captions=captions)
    assert (tmp_path / "test/2.tar").exists()
    assert (found.classes, found.templates) == (peer.classes or [], peer.templates or [])
    ours = [
        (shade(Image.open(io.BytesIO(i.read()))), list(i.texts) if captions else i.target)
        for i in found.items()
    ]
    assert ours == list(peer)


def shade(picture: Image.Image) -> int:
    """Return what tells a drawn picture."""
    return int(np.asarray(picture)[0, 0, 0])


def test_items_come_before_the_tar_is_read_to_its_end(tmp_path: Path) -> None:
    """Pictures are streamed: what is damaged further on shows up there, with tar and byte."""
    place = tars(tmp_path)
    put(tmp_path, {"test/1.tar": labelled(1, 0)[:3590]})
    items, seen = opened(place).items(), list[str]()
    with pytest.raises(TrainingError, match=r"damaged: .*cut short.* \[.*/test/1.tar byte 3072\]"):
        seen.extend(item.name for item in items)
    assert seen == ["0.tar/s0", "0.tar/s1", "0.tar/s2", "1.tar/s0"]


# --- shards -----------------------------------------------------------------------


def test_shards_tell_classes_by_their_queries(tmp_path: Path) -> None:
    """One listed name among the queries, or else the caption; none, several, removed: counted."""
    pairs = [
        asked_for(0, "owl"),
        asked_for(1, "bird", "OWL "),
        asked_for(2, "owl", "red apple"),
        asked_for(3, "bird"),
        asked_for(4, caption="Red  apple"),
        asked_for(5, "red apple"),
    ]
    place = shards(tmp_path / "set", pairs)
    put(tmp_path, {"names.txt": "red apple\nowl\nox\n"})
    uids = pa.array([bytes.fromhex(pairs[5].metadata.uid)], pa.binary(16))
    removal.remove(place, uids)
    found = opened(place, f"{tmp_path}/names.txt")
    counted = Counter[str]()
    for rank in range(2):
        list(found.items(rank, 2))
        counted.update(found.left_out)
    assert counted == {"several classes": 1, "no class": 1, "removed": 1}
    assert [(i.index, i.name, i.target, i.read()) for i in found.items()] == [
        (0, "000000.tar/000000000", 1, b"picture 0"),
        (1, "000000.tar/000000001", 1, b"picture 1"),
        (4, "000001.tar/000000004", 0, b"picture 4"),
    ]
    assert found.left_out == counted
    assert found.pictures([1, 5]) == {1: b"picture 1"}


def test_without_names_the_queries_are_the_classes(tmp_path: Path) -> None:
    """They are sorted, over the whole data set."""
    assert opened(shards(tmp_path)).classes == ["owl", "ox"]


def test_shards_have_a_caption_each(tmp_path: Path) -> None:
    """For retrieval there are texts and no classes."""
    found = opened(shards(tmp_path), captions=True)
    assert found.classes == []
    assert [item.texts for item in found.items()][-1] == ("picture number 6",)


def test_indexed_shards_of_others_tell_classes_by_captions(tmp_path: Path) -> None:
    """Where KEY.json has no queries, the caption is the class."""
    samples = [
        foreign_tar.sample(f"{n}", b"jpg", text) for n, text in enumerate(["ox", "owl", "?"])
    ]
    foreign_tar.write(tmp_path / "cc/0.tar", *samples)
    place = str(tmp_path / "index")
    index(Asked([f"{tmp_path}/cc/0.tar"], members("jpg", "txt")), place, InProcess(), Silent())
    put(tmp_path, {"names.json": '{"owl": "a bird", "ox": "an ox"}'})
    found = opened(place, f"{tmp_path}/names.json")
    assert said(found) == [("0.tar/0", "an ox"), ("0.tar/1", "a bird")]
    assert found.left_out == {"no class": 1}
    assert [item.texts for item in opened(place, captions=True).items()][2] == ("?",)
    with pytest.raises(TrainingError, match="do not say what was asked for"):
        opened(place)


# --- what is wrong with some --------------------------------------------------------


def wrong(
    make: Callable[[Path], str], files: dict[str, Content], words: str, **options: Any
) -> Any:
    return pytest.param(make, files, options, words, id=words)


def nothing(root: Path) -> str:
    return str(root)


WRONG = [
    wrong(nothing, {"1.png": ""}, "class folders; 1 files are in no class folder"),
    wrong(
        nothing,
        {"train/owl/1.png": "", "Test/owl/1.png": "", "README": ""},
        "look like splits, not like classes: Test, train .* -> name one, such as /.*/Test$",
    ),
    wrong(nothing, {"a/caf\udce9.png": "", "b/1.png": ""}, r"no text in UTF-8: 'a/caf\\udce9.png'"),
    wrong(lambda r: f"{r}/x.JPG", {"x.JPG": b"\xff"}, "a picture, not a test set"),
    wrong(nothing, {"a/1.txt": ""}, "1 files are not a picture by its name"),
    wrong(nothing, {"a/1.png": ""}, "one class, 'a': nothing to tell apart"),
    wrong(folder, {}, "class folders have no captions", captions=True),
    wrong(
        folder,
        {"names": "red aple\nowls\n"},
        r"2 of the set's 2 classes are not listed: 'owl' \(near: 'owls'\), 'red apple' \(near",
        names="names",
    ),
    wrong(folder, {"names": "a\nowl\na\n"}, r"'a' is listed twice \[.*line 3\]", names="names"),
    wrong(folder, {"classes.json": "[1]"}, "not an object of strings"),
    wrong(folder, {"classes.json": '{"owl": 1}'}, "not an object of strings"),
    wrong(folder, {"classes.json": "{"}, "not readable: "),
    wrong(folder, {"classes.json": '{"a": "b", "a": "c"}'}, "class 'a' is listed twice"),
    wrong(folder, {"names": b"caf\xe9"}, r"not text in UTF-8 \[.*byte 3\]", names="names"),
    wrong(a_list, {"list.tsv": "a.png\towl\nb.png ox\n"}, r"without a tab \[.*list.tsv line 2\]"),
    wrong(a_list, {"list.tsv": "<!doctype html>\n"}, "a web page, .* cannot be listed over https"),
    wrong(a_list, {"list.tsv": "\n"}, "no pictures in the list"),
    wrong(a_list, {"list.tsv": "a\towl\na\tox\n"}, "a is of class 'owl' and of class 'ox'"),
    wrong(folder, {"classes.json": '{"owl": "\\ud800"}'}, r"no text in UTF-8: '\\ud800'"),
    wrong(lambda r: tars(r) + "/test/0.tar", {}, "one file of a set"),
    wrong(tars, {}, "a set of classes, without captions", captions=True),
    wrong(tars, {"dataset_type.txt": "retrieval"}, "a set of captions, without classes"),
    wrong(tars, {"dataset_type.txt": "multilabel\n"}, "run clip_benchmark itself"),
    wrong(tars, {"test/nshards.txt": "two"}, "no number: 'two'"),
    wrong(tars, {"test/nshards.txt": "3"}, "2.tar is missing"),
    wrong(tars, {"classnames.txt": "owl\n\nox\n"}, r"without a name \[.*classnames.txt line 2\]"),
    wrong(tars, {"classnames.txt": "owl\n"}, "one class, 'owl': nothing to tell apart"),
    wrong(tars, {"names": "a\nb\nc\n"}, "3 names, and 2 classes in the set", names="names"),
    wrong(tars, {"test/1.tar": labelled(2)}, r"label 2, and the classes are 0 to 1 \[.*s0.cls\]"),
    wrong(tars, {"test/1.tar": labelled(-1)}, "label -1"),
    wrong(tars, {"test/1.tar": tar({"png": "", "cls": "owl"})}, "no number: b'owl'"),
    wrong(tars, {"test/1.tar": b"not a tar"}, "the tar is damaged"),
    wrong(tars, {"test/1.tar": ""}, "damaged: the end is missing"),
    wrong(tars, {"test/1.tar": tar({"png": ""}) + tar({"png": ""})}, "zeros, and entries behind"),
    wrong(
        tars,
        {"test/1.tar": foreign_tar.tar_of([("a.png", b""), ("a.cls", b"0"), ("a.PNG", b"")])},
        r"a second a.png \[.*test/1.tar byte 2048\]",
    ),
    wrong(
        tars,
        {"test/0.tar": tar({"png": "a"}), "test/1.tar": tar({"cls": "1"})},
        "no pictures with labels in the tars",
    ),
    wrong(shards, {"names": "fox\nhen\n"}, "no picture of a listed class", names="names"),
]


@pytest.mark.parametrize(("make", "files", "options", "words"), WRONG)
def test_what_is_wrong_is_told(
    make: Callable[[Path], str],
    files: dict[str, Content],
    options: dict[str, Any],
    words: str,
    tmp_path: Path,
) -> None:
    """One line says what, where, and what to do."""
    place = make(tmp_path)
    put(tmp_path, files)
    if "names" in options:
        options = {**options, "names": str(tmp_path / options["names"])}
    with pytest.raises(TrainingError, match=words) as caught:
        list(opened(place, **options).items())
    assert caught.value.where
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "words"), [("nshards.txt", "tars without"), ("1.tar", "1.tar is")]
)
def test_a_file_that_the_layout_needs_is_missed(name: str, words: str, tmp_path: Path) -> None:
    """Tars without their number, and a number without its tars."""
    place = tars(tmp_path)
    (tmp_path / "test" / name).unlink()
    with pytest.raises(TrainingError, match=words):
        opened(place)


def test_a_place_with_nothing_is_missed(tmp_path: Path) -> None:
    """It is a storage error, whatever was asked of it, and tells the place."""
    for captions in (False, True):
        with pytest.raises(GoneError, match=r"no such test set \[.*/nowhere.tsv\]"):
            opened(str(tmp_path / "nowhere.tsv"), captions=captions)


def test_a_folder_of_the_web_is_told_from_a_list(tmp_path: Path, web: str) -> None:
    """Where a server lists it or has none, the error says that class folders are to be local."""
    folder(tmp_path)
    with pytest.raises(TrainingError, match=r"a web page, .* cannot be listed over https"):
        opened(web)
    with pytest.raises(GoneError, match=r"no such test set .* cannot be listed over https"):
        opened(f"{web}/nowhere")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("ImageNet-1k", "did you mean 'imagenet'"),
        ("nosuch.txt", r"no such file of names \[nosuch.txt\] .*'imagenet' is the one word"),
    ],
)
def test_names_that_are_no_file_are_missed(names: str, words: str, tmp_path: Path) -> None:
    """The error tells the one word that may stand for a file."""
    with pytest.raises(GoneError, match=words):
        opened(folder(tmp_path), names)


def test_a_listed_picture_that_is_missing_is_told_with_its_line(tmp_path: Path) -> None:
    """So people find what to mend; the items before it can be read."""
    place = a_list(tmp_path)
    (tmp_path / "3.png").unlink()
    found = opened(place)
    *_, third, fourth = [item for item in found.items() if item.index < 4]
    assert third.read() == b"picture 2"
    for read in (fourth.read, lambda: found.pictures([3])):
        with pytest.raises(GoneError, match=r"file: .*/3.png \[.*/list.tsv line 4\] -> correct"):
            read()


def test_a_secret_in_a_list_is_found_before_any_picture_is_read(tmp_path: Path) -> None:
    """Its line is told, not itself."""
    place = a_list(tmp_path)
    put(tmp_path, {"list.tsv": "0.png\towl\ns3://me:hushhush@bucket/1.png\tox\n"})
    with pytest.raises(StorageError, match=r"credentials.*/1.png \[.*line 2\]") as caught:
        opened(place)
    assert "hushhush" not in str(caught.value)


def test_names_that_two_classes_share_are_ambiguous_by_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of ImageNet's names stand for two classes: shards cannot say which of them is meant."""
    monkeypatch.setattr(naming, "imagenet", lambda: ["missile", "owl", "missile"])
    found = opened(shards(tmp_path, [asked_for(0, "missile"), asked_for(1, "owl")]), "imagenet")
    assert [item.target for item in found.items()] == [1]
    assert found.left_out == {"several classes": 1}
    assert "several classes each: 1 ('missile'); of such" in found.notes[0]
