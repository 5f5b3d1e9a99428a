"""Units: done once, resumed, retried, reported."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from wit_builder import interrupts, storage, units
from wit_builder.errors import ArchiveError, StorageError, UnitsFailedError
from wit_builder.runners import InProcess, LocalPool
from wit_builder.units import Done, Run, Stage, Unit


class Job(msgspec.Struct, frozen=True):
    """Writes its number, notes that it ran, and fails while ``fail`` exists."""

    folder: str
    number: int


def write_number(job: Job) -> Done:
    with (Path(job.folder) / f"ran-{job.number}").open("a") as log:
        log.write("x")
    if (Path(job.folder) / f"fail-{job.number}").exists():
        raise StorageError("broken on purpose", where=str(job.number), fix="remove the file")
    if (Path(job.folder) / f"bad-{job.number}").exists():
        raise ArchiveError("bad for good", where=str(job.number), fix="remove the file")
    if (Path(job.folder) / f"die-{job.number}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    out = storage.publish_bytes(f"{job.folder}/out/{job.number}", str(job.number).encode())
    return Done([out], {"numbers": 1, "sum": job.number})


def stage(folder: Path, *, count: int = 5, settings: int = 0, identity: str = "") -> Stage:
    listed = [Unit(f"u{i}", [identity], Job(str(folder), i)) for i in range(count)]
    return Stage("write", write_number, listed, settings)


def runs(folder: Path) -> list[int]:
    return [len((folder / f"ran-{i}").read_text()) for i in range(5)]


@pytest.fixture(params=["in process", "two workers"])
def run(request: pytest.FixtureRequest, tmp_path: Path):
    """A run in a fresh folder, done by this process or by two workers."""
    runner = InProcess() if request.param == "in process" else LocalPool(2)
    yield Run(str(tmp_path), runner)
    runner.close()


def test_a_rewritten_output_is_not_made_anew(tmp_path: Path) -> None:
    """A marker that says so vouches for the file whatever its size, but not for its absence."""
    run = Run(str(tmp_path))
    identities = [marker.identity for marker in run.do(stage(tmp_path))]
    units.note_rewritten(str(tmp_path), [f"{tmp_path}/out/2", f"{tmp_path}/elsewhere"])
    storage.publish_bytes(f"{tmp_path}/out/2", b"less is told here")
    assert [marker.identity for marker in run.do(stage(tmp_path))] == identities
    assert runs(tmp_path) == [1, 1, 1, 1, 1]
    storage.publish_bytes(f"{tmp_path}/out/3", b"nobody noted this one")
    storage.remove(f"{tmp_path}/out/2")
    run.do(stage(tmp_path))
    assert runs(tmp_path) == [1, 1, 2, 2, 1]


def test_units_are_done_once_and_markers_come_in_order(run: Run, tmp_path: Path) -> None:
    """A second start finds everything done; markers tell outputs and counts."""
    markers = run.do(stage(tmp_path))
    assert [m.unit for m in markers] == [f"u{i}" for i in range(5)]
    assert units.total(markers) == {"numbers": 5, "sum": 10}
    assert [o.url for o in markers[3].outputs] == ["out/3"]
    again = run.do(stage(tmp_path))
    assert again == markers
    assert runs(tmp_path) == [1] * 5


def test_a_changed_input_or_section_makes_the_unit_anew(run: Run, tmp_path: Path) -> None:
    """The digest covers input identities and settings."""
    run.do(stage(tmp_path))
    run.do(stage(tmp_path, settings=1))
    run.do(stage(tmp_path, settings=1, identity="other"))
    assert runs(tmp_path) == [3] * 5


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_unit_whose_output_is_gone_is_done_anew(run: Run, tmp_path: Path, damage: str) -> None:
    """A marker counts only while its outputs stand there in their size."""
    run.do(stage(tmp_path))
    out = tmp_path / "out" / "2"
    out.unlink() if damage == "missing" else out.write_bytes(b"")
    run.do(stage(tmp_path))
    assert out.read_text() == "2"
    assert runs(tmp_path) == [1, 1, 2, 1, 1]


def test_units_that_the_stage_no_longer_has_are_removed(run: Run, tmp_path: Path) -> None:
    """A smaller stage leaves no outputs of a larger one behind; a retired one leaves none."""
    run.do(stage(tmp_path))
    run.do(stage(tmp_path, count=3))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0", "1", "2"]
    run.retire("write")
    assert list((tmp_path / "out").iterdir()) == []
    assert list((tmp_path / "units" / "g0" / "write").iterdir()) == []


def test_an_unreadable_marker_is_no_marker(run: Run, tmp_path: Path) -> None:
    """A marker cut short by a full disk of long ago does not count."""
    run.do(stage(tmp_path))
    (tmp_path / "units" / "g0" / "write" / "u1.json").write_text('{"unit": "u')
    run.do(stage(tmp_path))
    assert runs(tmp_path) == [1, 2, 1, 1, 1]


def test_a_failing_unit_is_retried_then_reported_and_the_others_finish(
    run: Run, tmp_path: Path
) -> None:
    """The error names unit, cause and folder; a rerun does only what is missing."""
    (tmp_path / "fail-3").touch()
    with pytest.raises(UnitsFailedError, match=r"1 of 5 units failed \(u3\): broken on purpose"):
        run.do(stage(tmp_path))
    assert runs(tmp_path) == [1, 1, 1, 2, 1]
    trace = tmp_path / "units" / "g0" / "write" / "u3.error.txt"
    assert "Traceback" in trace.read_text()
    (tmp_path / "fail-3").unlink()
    assert len(run.do(stage(tmp_path))) == 5
    assert runs(tmp_path) == [1, 1, 1, 3, 1]
    assert not trace.exists()


def test_a_unit_left_undone_is_not_vouched_for_by_its_old_marker(run: Run, tmp_path: Path) -> None:
    """Going back to old settings redoes a unit that other settings may have written over."""
    run.do(stage(tmp_path))
    (tmp_path / "bad-2").touch()
    with pytest.raises(UnitsFailedError):
        run.do(stage(tmp_path, settings=1))
    (tmp_path / "bad-2").unlink()
    run.do(stage(tmp_path))
    assert runs(tmp_path) == [3] * 5


def test_workers_that_died_while_idle_are_replaced(tmp_path: Path) -> None:
    """Killed between two stages, a pool goes on with new workers."""
    pool = LocalPool(2)
    try:
        Run(str(tmp_path), pool).do(stage(tmp_path))
        processes = list(pool._executor()._processes.values())
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        Run(str(tmp_path), pool).do(stage(tmp_path, settings=1))
    finally:
        pool.close()
    assert runs(tmp_path) == [2] * 5


def test_an_error_that_is_for_good_is_not_retried(run: Run, tmp_path: Path) -> None:
    """A bad input is reported at once: trying again would only take longer."""
    (tmp_path / "bad-3").touch()
    with pytest.raises(UnitsFailedError, match=r"\(u3\): bad for good"):
        run.do(stage(tmp_path))
    assert runs(tmp_path) == [1] * 5


@pytest.mark.slow
def test_a_worker_that_keeps_dying_is_reported_and_the_others_finish(tmp_path: Path) -> None:
    """A killed worker is replaced; the unit that kills it is named."""
    (tmp_path / "die-3").touch()
    pool = LocalPool(2)
    try:
        with pytest.raises(UnitsFailedError, match=r"\(u3\): the worker process died"):
            Run(str(tmp_path), pool).do(stage(tmp_path))
    finally:
        pool.close()
    assert sorted(p.name for p in (tmp_path / "out").glob("[0-9]")) == ["0", "1", "2", "4"]


PARENT = """
import sys, os, signal
from pathlib import Path
from wit_builder.runners import *
from wit_builder.units import *
def main(folder):
    sys.path.insert(0, sys.argv[2])
    import endless
    pool = LocalPool(2)
    units = [Unit(f"u{i}", [], folder) for i in range(2)]
    Run(folder, pool).do(Stage("endless", endless.work, units))
if __name__ == "__main__":
    main(sys.argv[1])
"""
ENDLESS = """
import os, select
def work(folder):
    descriptor = os.open(folder + "/alive", os.O_WRONLY)
    os.write(descriptor, b"%d\\n" % os.getpid())
    select.select([], [], [], 250)
"""


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL of the main process ends its workers: their end of a pipe closes."""
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "endless.py").write_text(ENDLESS)
    os.mkfifo(tmp_path / "alive")
    command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path), str(tmp_path)]
    with subprocess.Popen(command) as parent, (tmp_path / "alive").open("rb", buffering=0) as pipe:
        first = pipe.read(100)
        assert first
        parent.kill()
        while pipe.read(100):
            pass  # the read ends when the last worker has gone


def terminate_unheard(job: Job) -> Done:
    """A unit in a library that catches all."""
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)
    return write_number(job)


def test_a_signal_whose_exception_got_lost_ends_the_run_at_the_next_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done stays done; the next start goes on there."""
    monkeypatch.setattr(interrupts, "_came", [])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts.heed()
    try:
        with pytest.raises(KeyboardInterrupt):
            Run(str(tmp_path)).do(replace(stage(tmp_path), function=terminate_unheard))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert [path.name for path in tmp_path.glob("ran-*")] == ["ran-0"]


INTERRUPTED = """
import os, signal, threading
from multiprocessing import util
from wit_builder.runners import LocalPool
started = threading.Event()
def spawn(*given, real=util.spawnv_passfds):
    child = real(*given)
    if "--multiprocessing-fork" in given[1]:
        os.killpg(0, signal.SIGINT)  # as Ctrl-C does
        started.set()
        other.join()
    return child
def take():
    started.wait()
    signal.raise_signal(signal.SIGINT)  # to this thread, which heeds it
other = threading.Thread(target=take)
def main():
    util.spawnv_passfds = spawn
    other.start()
    pool = LocalPool(1)
    try:
        list(pool.each(abs, [-1]))
    except KeyboardInterrupt:
        print(list(pool.each(abs, [-2])), flush=True)
    finally:
        pool.close()
if __name__ == "__main__":
    main()
"""


def test_ctrl_c_while_a_worker_starts_is_the_parent_s_alone(tmp_path: Path) -> None:
    """The parent is interrupted once it has told the worker all; the worker does not heed it."""
    (tmp_path / "parent.py").write_text(INTERRUPTED)
    command = [sys.executable, str(tmp_path / "parent.py")]
    done = subprocess.run(
        command, start_new_session=True, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[(-2, 2)]\n", "")
