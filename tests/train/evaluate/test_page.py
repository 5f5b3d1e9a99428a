"""The page as text: what it tells, that nothing in it can run, and how large it is."""

from __future__ import annotations

import re
from collections.abc import Collection

import cv2
import numpy as np
import pyarrow as pa
import pytest
from msgspec.structs import replace
from selectolax.lexbor import LexborHTMLParser

from wit_train.evaluate import class_section
from wit_train.evaluate import page as pages
from wit_train.evaluate.page import page
from wit_train.evaluate.results import (
    PREDICTIONS,
    Overlap,
    Probe,
    Prompt,
    Result,
    Results,
    Score,
    Shot,
)
from wit_train.evaluate.retrieved import Example, Found

DASH, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
HOSTILE = "<script>alert('x')</script>"
CLASSES = [HOSTILE, "cat & dog", "owl", "bat"]
TRUTHS = [0, 0, 0, 0, 1, 1, 1, 1, *[2] * 22]
ANSWERS = [1, 1, 2, 0, 1, 1, 1, 0, *[2] * 22]


def _picture(at: int) -> bytes:
    pixels = np.full((40, 60, 3), (at * 37) % 256, np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _pictures(places: Collection[int]) -> dict[int, bytes]:
    return {at: b"torn" if at == 1 else _picture(at) for at in places if at != 2}


def _predictions(truths: list[int] = TRUTHS, answers: list[int] = ANSWERS) -> pa.Table:
    rows = [
        {
            "index": at,
            "picture": f"<b>{at}</b>.png",
            "target": truth,
            "predicted": answer,
            "rank": 0 if truth == answer else 6,
            "score": 0.3 - 0.01 * at,
            "margin": 0.1,
            "top5": [answer],
        }
        for at, (truth, answer) in enumerate(zip(truths, answers, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


ZERO_SHOT = Result(
    data="s3://bucket/set",
    scores={
        "top1": Score(0.6, 0.25, 0.262, 0.878),
        "roc_auc": Score(0.8734, 0.5, 0.8, 0.9),
        "mean_per_class": Score(0.6667),
    },
    pictures=10,
    classes=4,
    left_out={"undecodable": 2, "no_class": 1},
    undecodable=["<i>torn</i>.jpg", "short.jpg"],
    notes=["a <note>"],
    templates=["a photo of a {}", "a <u>{}</u>"],
    prompts=[
        Prompt("a photo of a {}", Score(0.5, 0.25, 0.2, 0.8)),
        Prompt("a <u>{}</u>", Score(0.7, 0.25, 0.3, 0.9)),
    ],
    empty_classes=["bat"],
)
RETRIEVAL = Result(
    data="pairs",
    scores={
        "text_by_image_r1": Score(0.25, 0.01, 0.2, 0.3),
        "text_by_image_r5": Score(0.5, 0.05, 0.4, 0.6),
        "image_by_text_r1": Score(0.125, 0.01, 0.1, 0.2),
    },
    pictures=100,
    texts=500,
)
PROBE = Probe(
    result=Result(
        data="s3://bucket/set",
        scores={"top1": Score(0.9, 0.25, 0.8, 0.95)},
        pictures=10,
        notes=["20 were split off", "20 were split off"],
    ),
    strength=0.01,
    sweep=[(1e-4, 0.5), (0.01, 0.8), (1.0, 0.7)],
    train=100,
    validation=20,
    converged=False,
    few_shot=[Shot(1, 0.5, [0.4, 0.6], 0.1), Shot(4, 0.7, [0.69, 0.71], 0.1, short=2)],
)
OVERLAP = Overlap(
    shards=["s3://wit/g0/shards"],
    hashed=1_000_000,
    pictures=10,
    candidates=3,
    overlapping=1,
    threshold=0.95,
    distance=8,
    all=Score(0.6, None, 0.3, 0.9),
    overlap=Score(1.0, None, 0.1, 1.0),
    clean=Score(0.5556, None, 0.2, 0.8),
    inflation=0.0444,
    p_value=0.5556,
)
FULL = Results(
    model="runs/mine",
    weights="0123abcd",
    step=1200,
    zero_shot=ZERO_SHOT,
    retrieval=RETRIEVAL,
    probe=PROBE,
    overlap=OVERLAP,
)
EXAMPLES = [
    Example(HOSTILE, [Found(3, 0.5, right=False), Found(4, 0.25, right=True)], 1),
    Example(
        3,
        [Found("a text", 0.5, right=False)],
        41,
        Found("the <b>right</b> one", -0.125, right=True),
    ),
]


def _page(results: Results = FULL, *, classes: bool = True) -> str:
    table = _predictions() if classes else None
    return page(results, table, CLASSES, _pictures, EXAMPLES)


@pytest.fixture(scope="module")
def html() -> str:
    """The page with everything on it."""
    return _page()


@pytest.fixture(scope="module")
def tree(html) -> LexborHTMLParser:
    """It as a browser would build it."""
    return LexborHTMLParser(html)


def _told(html: str, selector: str = "body") -> str:
    """Return what a reader sees of an element, white space collapsed."""
    [found] = LexborHTMLParser(html).css(selector)
    return " ".join(found.text(separator=" ").split())


def _rows(tree: LexborHTMLParser, label: str) -> list[list[str]]:
    [table] = tree.css(f"[aria-label='{label}'] table, [aria-labelledby='{label}'].scroll table")
    return [
        [" ".join(cell.text(separator=" ").split()) for cell in row.css("th, td")]
        for row in table.css("tbody tr")
    ]


def test_hostile_strings_are_only_text(html, tree):
    """Class names, captions, prompts and file names with markup make no element."""
    assert len(tree.css("script")) == 1
    assert "<script>alert" not in html
    assert not tree.css("main i, main u, note")
    assert [b.text() for b in tree.css("q") if "script" in b.text()] == [HOSTILE]
    assert HOSTILE in [row[0] for row in _rows(tree, "h-classes")]


def test_the_page_asks_for_nothing(html):
    """No address of another place is in it, its policy allows none, and pictures are inside."""
    assert not re.search(r"https?://|<link|@import|url\(", html)
    assert "default-src 'none'; img-src data:;" in html
    sources = [img.attributes["src"] for img in LexborHTMLParser(html).css("img")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources if source)


def test_same_results_same_bytes(html):
    """The same arguments give the same page."""
    assert _page() == html


def test_scores_stand_beside_interval_and_chance(tree):
    """Shares are in per cent, an area under a curve is not; what is not known is a dash."""
    assert [row[1:4] for row in _rows(tree, "Zero-shot scores")] == [
        ["60.0 %", "26.2 to 87.8 %", "25.0 %"],
        ["0.873", "0.800 to 0.900", "0.500"],
        ["66.7 %", DASH, DASH],
    ]


def test_what_was_left_out_is_told(html):
    """Reasons with counts, names of undecodable pictures, empty classes and notes are there."""
    told = _told(html, "section[aria-labelledby=h-zero]")
    assert "Not measured: 2 pictures, undecodable; 1 picture, no class." in told
    assert "2 pictures that cannot be read or decoded <i>torn</i>.jpg short.jpg" in told
    assert "1 class to choose from without a picture bat" in told
    assert "a <note>" in told


def test_wordings_are_compared_best_first(tree):
    """All prompts are ranked by top-1, and what they reach together is marked among them."""
    items = tree.css(".wordings li")
    assert [item.css_first(".label").text() for item in items] == [
        "a <u>{}</u>",
        "all 2 together",
        "a photo of a {}",
    ]
    assert [item.attributes.get("class") for item in items] == [None, "ensemble", None]


def test_many_wordings_are_folded_away():
    """Of eighty prompts the best are seen at once, the others on request; none is lost."""
    many = [Prompt(f"{i} {{}}", Score(i / 100)) for i in range(80)]
    tree = LexborHTMLParser(_page(replace(FULL, zero_shot=replace(ZERO_SHOT, prompts=many))))
    assert len(tree.css(".wordings li")) == 81
    assert (
        len(tree.css("details .wordings li")) == 81 - 20
    )  # of the rest, 19 are better than all together


def test_every_class_is_told_worst_first(tree):
    """A row a class with pictures: how often it was right, answered, and what it was taken for."""
    rows = [[cell for i, cell in enumerate(row) if i != 3] for row in _rows(tree, "h-classes")]
    assert rows == [
        [HOSTILE, "4", "25.0 %", "25.0 %", "2", f"cat & dog 2{TIMES}"],
        ["cat & dog", "4", "75.0 %", "75.0 %", "5", f"{HOSTILE} 1{TIMES}"],
        ["owl", "22", "100 %", "100 %", "23", ""],
    ]


def test_the_worst_classes_are_shown_with_their_pictures(tree):
    """Each has its wrong answers, most frequent first, with pictures, scores, the truth's rank."""
    [worst] = tree.css("article.worst")
    assert worst.css_first(".truth").text() == HOSTILE
    headings = [" ".join(h.text(separator=" ").split()) for h in worst.css("h4")]
    assert headings == [f"taken for cat & dog 2{TIMES}", f"taken for owl 1{TIMES}"]
    assert [li.text(separator=" ").split()[-4:] for li in worst.css("li")] == [
        ["0.300", "right:", "7th"],
        ["decode", "0.290", "right:", "7th"],
        ["read", "0.280", "right:", "7th"],
    ]
    assert len(worst.css("img")) == 1
    assert not tree.css(".mistakes")


def test_without_a_surely_bad_class_mistakes_are_shown():
    """One picture a class makes none bad: wrong pictures stand there with truth and answer."""
    html = page(FULL, _predictions([0, 1, 3], [2, 1, 1]), CLASSES, _pictures)
    tree = LexborHTMLParser(html)
    assert not tree.css(".worst")
    assert [
        " ".join(li.text(separator=" ").split()) for li in tree.css(".gallery.mistakes li")
    ] == [
        f"{HOSTILE} taken for owl 0.300; right: 7th",
        "cannot be read bat taken for cat & dog 0.280; right: 7th",
    ]
    assert "No class has enough pictures" in _told(html, "[aria-labelledby=h-mistakes]")
    assert "below the 33.3 % of all" in _told(html, "[aria-labelledby=h-mistakes]")


def test_a_picture_that_does_not_decode_says_so(tree):
    """In its place stands what is wrong with it, so that nothing is silently missing."""
    said = [span.text() for span in tree.css(".worst .missing")]
    assert said == ["does not decode", "cannot be read"]


def test_the_matrix_adds_up(tree):
    """A row of the confusion matrix has all pictures of its class, the diagonal what is right."""
    rows = _rows(tree, "h-matrix")
    assert rows == [[HOSTILE, "1", "2", "1"], ["cat & dog", "1", "3", ""], ["owl", "", "", "22"]]
    framed = tree.css(".matrix td.right")
    assert [cell.text() for cell in framed] == ["1", "3", "22"]


def test_retrieval_is_told_both_ways(tree):
    """R@k by text and by picture, each a table; examples mark what is right, found or not."""
    assert [row[:2] for row in _rows(tree, "Texts found by picture")] == [
        ["R@1", "25.0 %"],
        ["R@5", "50.0 %"],
    ]
    assert [row[:2] for row in _rows(tree, "Pictures found by text")] == [["R@1", "12.5 %"]]
    right = [" ".join(li.text(separator=" ").split()) for li in tree.css("li.right")]
    assert right == ["the <b>right</b> one right, 42nd \N{MINUS SIGN}0.125", "0.250 right"]


def test_the_probe_has_its_curves(html, tree):
    """Few-shot stands beside zero-shot, the sweep marks its choice, a fit cut short is told."""
    plots = tree.css("section[aria-labelledby=h-probe] .plot")
    assert [len(plot.css("circle")) for plot in plots] == [6, 3]
    assert "zero-shot 60.0 %" in " ".join(plots[0].text().split())
    assert "chosen: 0.01" in plots[1].text()
    told = _told(html, "section[aria-labelledby=h-probe]")
    assert "before it converged" in told
    assert "4 fewer in 2 classes" in told
    assert "2 classes than 4; all of theirs are used" in told
    assert told.count("20 were split off") == 1
    assert len(tree.css(".notice")) == 1


def test_zero_shot_of_another_set_is_no_line_of_the_probe():
    """What was measured on other pictures is not drawn into the few-shot plot."""
    other = replace(FULL, zero_shot=replace(ZERO_SHOT, data="another"))
    assert "zero-shot 60.0 %" not in _told(_page(other), "section[aria-labelledby=h-probe]")


def test_overlap_is_told_with_its_page(html, tree):
    """Counts, accuracies, the test and a link to the pairs are there."""
    told = _told(html, "section[aria-labelledby=h-overlap]")
    assert "1 picture of 10 (10.0 %) is nearly the same as one of 1,000,000 training" in told
    assert "+4.44 points" in told
    assert "probability of 0.56" in told
    [link] = tree.css("section[aria-labelledby=h-overlap] a")
    assert link.attributes["href"] == "overlap/overlap.html"


@pytest.mark.parametrize("part", ["zero_shot", "retrieval", "probe", "overlap"])
def test_what_was_not_measured_has_no_section(part):
    """Each part stands alone, and its absence leaves no heading behind."""
    alone = Results(model="m", weights="w", **{part: getattr(FULL, part)})
    tree = LexborHTMLParser(page(alone, None, [], _pictures))
    wanted = {"zero_shot": 2}.get(part, 1)
    assert len(tree.css("section")) == wanted
    assert not tree.css(".notice") or part in {"zero_shot", "probe"}


def test_nothing_measured_says_so():
    """An evaluation of nothing is a page that says it."""
    assert "Nothing was measured." in _told(
        page(Results(model="m", weights=""), None, [], _pictures)
    )


def test_no_mistake_has_no_worst_class():
    """A model that is always right has a table of classes; no mistakes to show, no matrix."""
    right = page(FULL, _predictions(TRUTHS, TRUTHS), CLASSES, _pictures)
    assert not LexborHTMLParser(right).css(".worst, .mistakes, .matrix")
    assert "3 classes of 3 are named without a mistake." in _told(right, "#classes")


def test_a_thousand_classes_stay_small():
    """With a thousand classes and noise for pictures, few are asked for and the page is small."""
    asked = []
    rng = np.random.default_rng(0)
    noise = cv2.imencode(".jpg", rng.integers(0, 256, (300, 400, 3), np.uint8))[1].tobytes()

    def pictures(places: Collection[int]) -> dict[int, bytes]:
        asked.append(len(places))
        return dict.fromkeys(places, noise)

    truths = np.repeat(np.arange(1000), 10)
    answers = np.where(rng.random(10_000) < 0.5, truths, rng.integers(0, 1000, 10_000))
    table = pa.table(
        {
            "index": np.arange(10_000),
            "picture": [f"{i}.jpg" for i in range(10_000)],
            "target": truths.astype(np.int32),
            "predicted": answers.astype(np.int32),
            "rank": np.where(truths == answers, 0, 3).astype(np.int32),
            "score": rng.random(10_000).astype(np.float32),
        }
    )
    names = [f"class of number {i}" for i in range(1000)]
    examples = [
        Example(f"text {i}", [Found(i * 10 + j, 0.1, right=False) for j in range(10)], 20)
        for i in range(20)
    ]
    html = page(FULL, table, names, pictures, examples)
    cards = class_section.WORST * class_section.CONFUSIONS * class_section.OF_EACH
    assert sum(asked) <= cards + pages.EXAMPLES * (pages.FOUND + 1)
    assert len(html) < 3_000_000
    assert len(LexborHTMLParser(html).css("#table tbody tr")) == 1000
