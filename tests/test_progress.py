"""What is seen of a stage while it runs."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from wit_builder import live, storage
from wit_builder.errors import StorageError
from wit_builder.progress import Bars, JsonLines, Lines, Observer, Silent, Speed
from wit_builder.units import Done, Run, Stage, Unit

NOW = {"alive": 30, "dead": 10, "http_4xx": 10, "rejected:x": 3}


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("wit_builder.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_speed_and_time_left(clock: Clock) -> None:
    """Items a second by what was seen, and from that the time for the others."""
    speed = Speed()
    speed.add(1_000)
    assert (speed.per_s, speed.words(5_000)) == (0.0, "")
    clock.now += 10
    speed.add(1_500)
    assert speed.per_s == 50.0
    assert speed.words(5_000) == "50/s, 0:01:10 left"


def test_speed_is_that_of_late(clock: Clock) -> None:
    """What was slow long ago does not count: only the last two minutes do."""
    speed = Speed()
    for second in range(0, 600, 5):
        speed.add(second if second < 300 else 300 + 10 * (second - 300))
        clock.now += 5
    assert speed.per_s == 10.0


def test_speed_of_what_stands_still(clock: Clock) -> None:
    """Nothing is said of a speed or a time left while nothing gets done, or all of it is."""
    speed = Speed()
    for _ in range(2):
        speed.add(7)
        clock.now += 5
    assert speed.words(9) == ""
    speed.add(10)
    assert speed.words(9).endswith("0:00:00 left")


def told(observer: Observer, clock: Clock) -> None:
    """Tell an observer of a stage of two minutes, looked at every five seconds."""
    with observer:
        observer.begin("fetch-r0", "fetch 1", 4, 1)
        for look in range(1, 25):
            clock.now += 5
            observer.live("fetch-r0", 10 * look, 1_000, {**NOW, "alive": 10 * look})
        observer.advance("fetch-r0", {"alive": 240})
        observer.end("fetch-r0", {"alive": 900, "dead": 100, "http_4xx": 100})


def test_lines_come_once_a_minute(clock: Clock) -> None:
    """Off a terminal a long stage says once a minute how far it is, without reasons."""
    stream = io.StringIO()
    told(Lines(stream), clock)
    assert stream.getvalue().splitlines() == [
        "fetch 1            120 of 1,000, 2/s, 0:07:20 left, 120 alive, 10 dead",
        "fetch 1            240 of 1,000, 2/s, 0:06:20 left, 240 alive, 10 dead",
        "fetch 1              120.0 s  900 alive, 100 dead",
    ]


def test_lines_of_short_stages(clock: Clock) -> None:
    """What is done within a minute says nothing before its end."""
    stream = io.StringIO()
    with Lines(stream) as lines:
        lines.begin("match", "match", 4, 0)
        clock.now += 59
        lines.live("match", 5, 9, {"matched": 5})
        lines.end("match", {"matched": 9})
    assert stream.getvalue() == "match                 59.0 s  9 matched\n"


def test_json_says_every_look(clock: Clock) -> None:
    """Machines get every look: how many are done, of how many, how fast, with all counts."""
    stream = io.StringIO()
    told(JsonLines(stream), clock)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [e["event"] for e in events] == ["begin", *["progress"] * 24, "end"]
    assert events[0] | events[-1] == {
        "event": "end", "stage": "fetch-r0", "step": "fetch 1", "units": 4, "done_before": 1,
        "seconds": 120.0, "counts": {"alive": 900, "dead": 100, "http_4xx": 100},
    }  # fmt: skip
    assert (events[1]["done"], events[1]["items"], events[1]["per_s"]) == (10, 1_000, 0.0)
    assert events[24] == {
        "event": "progress", "stage": "fetch-r0", "done": 240, "items": 1_000, "per_s": 2.0,
        "left_s": 380.0, "counts": {**NOW, "alive": 240},
    }  # fmt: skip


def test_a_bar_tells_of_items(clock: Clock) -> None:
    """On a terminal the bar is of items once there is a look at them, and of units before."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bars = Bars(console)
    with bars:
        bars.begin("fetch-r0", "fetch 1", 4, 1)
        bars.advance("fetch-r0", {"alive": 5})
        [task] = bars._bars.tasks
        assert (task.completed, task.total, task.fields["note"]) == (2, 4, "5 alive")
        bars.live("fetch-r0", 40, 1_000, NOW)
        clock.now += 10
        bars.live("fetch-r0", 60, 1_000, NOW)
        bars.advance("fetch-r0", {"alive": 70})
        [task] = bars._bars.tasks
        assert (task.completed, task.total) == (60, 1_000)
        assert task.fields["note"] == "2/s, 0:07:50 left, 30 alive, 10 dead"
        bars.begin("answers-r0", "fetch 1", 7, 0)
        [task] = bars._bars.tasks
        assert (task.completed, task.total) == (0, 7)
        bars.end("answers-r0", {"alive": 900})
    assert "900 alive" in console.file.getvalue()  # type: ignore[attr-defined]


class Looks(Silent):
    """An observer that lets a unit go on once it was told of it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int, dict[str, int]]] = []
        self.enough = threading.Event()
        self.wanted = {"alive": 3, "dead": 2}

    def live(self, stage: str, done: int, items: int, counts: dict[str, int]) -> None:
        self.seen.append((stage, done, items, counts))
        if counts == self.wanted:
            self.enough.set()


class Slow(msgspec.Struct, frozen=True):
    """A unit that tells how it gets on; a slow one waits until that was seen."""

    root: str
    name: str


LOOKS = Looks()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """An observer that ``work`` knows; it is told of a stage every hundredth of a second."""
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    monkeypatch.setitem(globals(), "LOOKS", Looks())
    return LOOKS


def work(job: Slow) -> Done:
    if job.name == "quick":
        return Done([], {"alive": 2, "dead": 1})
    place = live.place(job.root, "g0", "fetch", job.name)
    live.tell(place, {"alive": 1, "dead": 1})
    assert LOOKS.enough.wait(60)
    return Done([], {"alive": 6})


def test_units_under_way_are_looked_at(looks: Looks, tmp_path: Path) -> None:
    """What units under way have told adds to what those that are done have counted."""
    listed = [Unit(name, [], Slow(str(tmp_path), name)) for name in ("quick", "slow")]
    stage = Stage("fetch", work, listed, items=9, counted=["alive", "dead"])
    Run(str(tmp_path), observer=looks).do(stage)
    assert ("fetch", 5, 9, {"alive": 3, "dead": 2}) in looks.seen
    assert [done for _, done, _, _ in looks.seen] == sorted(done for _, done, _, _ in looks.seen)
    assert {place.name for place in (tmp_path / "units" / "g0" / "fetch").iterdir()} == {
        "quick.json",
        "slow.json",
    }
    seen = len(looks.seen)
    Run(str(tmp_path), observer=looks).do(stage)
    assert len(looks.seen) == seen


def test_a_look_that_fails_is_made_up_for(
    looks: Looks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What cannot be read just now ends neither the stage nor the looking."""
    looks.wanted = {"alive": 1, "dead": 1}
    read_many = storage.read_many
    failed: list[object] = []

    def sometimes(places: object) -> dict[str, bytes]:
        if threading.current_thread() is not threading.main_thread() and len(failed) < 3:
            failed.append(places)
            raise StorageError("not now", where="there", fix="wait")
        return read_many(places)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "read_many", sometimes)
    stage = Stage(
        "fetch", work, [Unit("slow", [], Slow(str(tmp_path), "slow"))], items=9,
        counted=["alive", "dead"],
    )  # fmt: skip
    Run(str(tmp_path), observer=looks).do(stage)
    assert len(failed) == 3


def test_stages_without_items_are_not_watched(looks: Looks, tmp_path: Path) -> None:
    """Where nothing is counted nobody looks."""
    stage = Stage("fetch", work, [Unit("quick", [], Slow(str(tmp_path), "quick"))])
    Run(str(tmp_path), observer=looks).do(stage)
    assert looks.seen == []
