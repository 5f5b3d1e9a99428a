"""A real Ray cluster of several nodes on this machine: what dies is done elsewhere, same bytes.

Units wait at a gate (a FIFO) and say through another one where they began, so that a node, a worker
or the command itself is killed exactly while units are at work, with nobody's clock involved.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.small_web import CAP, CONCEPTS
from wit_builder import pipeline, runners, storage
from wit_builder import recipe as recipes
from wit_builder.demo import site, warc
from wit_builder.errors import ClusterError, UnitsFailedError
from wit_builder.runners import InProcess, RayCluster, Runner
from wit_builder.units import Done, Run, Stage, Task, Unit

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
ARCHIVES = 8
RECIPE = """
name = "cluster"
seed = 7
buckets = 3
[queries]
numbers = 0
custom = ["queries.txt"]
[balance]
cap_per_query = {cap}
[[crawl.sources]]
kind = "warc"
paths = ["*.warc.gz"]
"""


# --- the cluster ------------------------------------------------------------


def ended(pids: Sequence[int]) -> None:
    """Return when none of these processes runs any more."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        select.select([descriptor], [], [])
        os.close(descriptor)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no units and two nodes of one core, which leave nothing behind."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of what will change
    # not pytest's folder: the name of a socket has 107 bytes at most
    folder = tempfile.mkdtemp(prefix="ray-")
    patch.setenv("RAY_TMPDIR", folder)  # where the cluster's address is left for whom it concerns
    Path(folder, "ray").mkdir()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers know no tests
    made: Any = Cluster(True, head_node_args={**NODE, "num_cpus": 0, "temp_dir": folder})
    for _ in range(2):
        made.add_node(**NODE)
    nodes = made.list_all_nodes()
    yield made
    made.shutdown()
    ended([i.process.pid for n in nodes for kind in n.all_processes.values() for i in kind])
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", int(nodes[0].gcs_address.rpartition(":")[2])))
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    shutil.rmtree(folder)
    patch.undo()


@pytest.fixture
def runner(cluster: Any) -> Iterator[RayCluster]:
    """The runner that `--runner ray --address` makes."""
    made = RayCluster(cluster.address)
    yield made
    made.close()


# --- the gate ---------------------------------------------------------------


class Began(NamedTuple):
    """A unit that is at the gate: its name, its process, and its node."""

    unit: str
    pid: int
    node: str


class Gate:
    """Two FIFOs of a folder: units say in one that they began, and wait for the other to open.

    Both are held open at both ends here, so that nobody who says something waits for a listener,
    and what was said is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.place = folder
        os.mkfifo(folder / "began")
        os.mkfifo(folder / "open")
        self._ear = os.open(folder / "began", os.O_RDWR)
        self._bolts: list[int] = []

    def began(self, count: int) -> list[Began]:
        """Return what so many units said, waiting for them."""
        lines = [b"".join(iter(partial(os.read, self._ear, 1), b"\n")) for _ in range(count)]
        said = [line.decode().split() for line in lines]
        return [Began(unit, int(pid), node) for unit, pid, node in said]

    def open(self) -> None:
        """Let all through that wait, and that will come."""
        self._bolts.append(os.open(self.place / "open", os.O_RDWR))

    def close(self) -> None:
        for descriptor in [self._ear, *self._bolts]:
            os.close(descriptor)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate that is shut."""
    made = Gate(tmp_path)
    yield made
    made.close()


def wait_at(place: Path, unit: str) -> None:
    """As a unit, on a node: tell, and wait until the gate is open."""
    said = f"{unit} {os.getpid()} {ray.get_runtime_context().get_node_id()}\n"
    with (place / "began").open("w") as stream:
        stream.write(said)
    os.close(os.open(place / "open", os.O_RDONLY))


def at_gate(place: Path, free: int, function: Callable[[Task], Any], task: Task) -> Any:
    """Do a real unit; one that reads an archive, but for the first few, waits at the gate."""
    if "crawl" in task.folder and int(task.unit.name.rpartition("-")[2]) >= free:
        wait_at(place, task.unit.name)
    return function(task)


class Gated(RayCluster):
    """The runner, its units but for the first few at a gate, and what is in flight."""

    def __init__(self, address: str, place: Path, free: int = 0) -> None:
        super().__init__(address)
        self._gate = partial(at_gate, place, free)
        self._ray = self.ray = Counting()

    def each(self, function: Any, items: Any) -> Any:
        return super().each(partial(self._gate, function), items)


class Counting:
    """Ray, and how many tasks are waited for."""

    def __init__(self) -> None:
        self.in_flight: list[int] = []
        self._more = threading.Condition()

    def __getattr__(self, name: str) -> Any:
        return getattr(ray, name)

    def wait(self, references: list[Any], **how: Any) -> Any:
        with self._more:
            self.in_flight.append(len(references))
            self._more.notify()
        return ray.wait(references, **how)

    def wait_for(self, in_flight: int) -> None:
        """Return when so many tasks are in flight."""
        with self._more:
            self._more.wait_for(lambda: self.in_flight[-1:] == [in_flight])


# --- a build ----------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe over WARC files of the demo's web."""
    folder = tmp_path_factory.mktemp("archives")
    plan = site.plan(site.Settings(data=str(data_dir), concepts=CONCEPTS))
    warc.write_warcs(str(folder), plan, files=ARCHIVES)
    (folder / "queries.txt").write_text("\n".join([c.name for c in plan.concepts] + ["drawing"]))
    (folder / "recipe.toml").write_text(RECIPE.format(cap=CAP))
    return str(folder / "recipe.toml")


def build(recipe: str, root: Path, runner: Runner) -> None:
    pipeline.Build(recipes.read(recipe), Run(str(root), runner))("balance")


def files_of(root: Path) -> dict[str, bytes]:
    """Return every file of a run but markers, which tell seconds, and hidden ones."""
    found = [p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")]
    inside = {str(p.relative_to(root)): p for p in found}
    return {name: p.read_bytes() for name, p in inside.items() if not name.startswith("units/")}


@pytest.fixture(scope="module")
def alone(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All tables of a build that this process made by itself."""
    root = tmp_path_factory.mktemp("alone")
    build(recipe, root, InProcess())
    found = files_of(root)
    assert len([name for name in found if name.startswith("g0/candidates/")]) == ARCHIVES
    assert len([name for name in found if name.startswith("g0/selected/")]) > 1
    return found


@contextlib.contextmanager
def building(recipe: str, root: Path, runner: Gated, gate: Gate) -> Iterator[None]:
    """A build that goes on in a thread; in the end the gate is opened and the build done.

    In a thread, because nodes are started by the main one alone.
    """
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(build, recipe, root, runner)
        try:
            yield
        finally:
            gate.open()
        done.result()
    runner.close()


def test_a_node_joins_and_one_is_killed_mid_run_and_no_byte_changes(
    cluster: Any,
    recipe: str,
    alone: dict[str, bytes],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new node is given work, a killed one's is done elsewhere; two a core are in flight."""
    monkeypatch.setattr(runners, "_LOOK_AGAIN_S", 0.1)
    runner, root = Gated(cluster.address, gate.place), gate.place / "run"
    with building(recipe, root, runner, gate):
        first = gate.began(2)
        runner.ray.wait_for(2 * 2)
        assert max(runner.ray.in_flight) == 2 * 2
        cluster.add_node(**NODE)
        first += gate.began(1)
        runner.ray.wait_for(3 * 2)
        assert len({b.node for b in first}) == 3, "all nodes are at work"
        [node] = [n for n in cluster.worker_nodes if n.node_id == first[0].node]
        cluster.remove_node(node, allow_graceful=False)
        ended([first[0].pid])
    later = gate.began(ARCHIVES - len(first) + 1)  # all that had not begun, and the killed one
    assert files_of(root) == alone
    assert Counter(b.unit for b in first + later) == Counter([*units_of(root), first[0].unit])
    assert {b.node for b in later} <= {b.node for b in first[1:]}
    assert max(runner.ray.in_flight) == 3 * 2


def units_of(root: Path) -> list[str]:
    """Return the names of the units that read archives and are done."""
    return [p.stem for p in root.glob("units/g0/crawl*/*.json")]


DRIVER = """
import sys
from pathlib import Path
from tests.test_cluster import Gated
from wit_builder import cli, runners
import ray
ray.cloudpickle.register_pickle_by_value(sys.modules["tests.test_cluster"])
runners.make_runner = lambda workers, address: Gated(address, Path(sys.argv[1]), free=2)
cli.main(sys.argv[2:])
"""


def test_a_command_that_dies_takes_its_tasks_along_and_goes_on_when_started_again(
    runner: RayCluster, recipe: str, alone: dict[str, bytes], gate: Gate
) -> None:
    """Killed, interrupted, or terminated, it leaves no task behind, and what was done stays."""
    root, address = gate.place / "run", ray.get_runtime_context().gcs_address
    arguments = ["balance", recipe, "--out", str(root), "--runner", "ray", "--address", address]
    command = [sys.executable, "-c", DRIVER, str(gate.place), *arguments]
    for signal_number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as driver:
            first = gate.began(2)
            driver.send_signal(signal_number)
            _, said = driver.communicate()
        ended([b.pid for b in first])
        if signal_number != signal.SIGKILL:
            assert driver.returncode == 130
            assert said.splitlines()[-1].startswith("wit: interrupted ->")
            assert "Traceback" not in said
    assert len(units_of(root)) == 2
    done = {p: p.stat().st_mtime_ns for p in root.glob("units/g0/crawl*/*.json")}
    build(recipe, root, runner)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert files_of(root) == alone


# --- units that kill their workers ------------------------------------------


def write_number(job: tuple[str, int]) -> Done:
    """Note that it ran, kill its worker as often as a file says, and publish its number."""
    folder, number = Path(job[0]), job[1]
    with (folder / f"ran-{number}").open("a+") as log:
        log.write("x")
        log.seek(0)
        ran = len(log.read())
    deadly = folder / f"die-{number}"
    if deadly.exists() and ran <= int(deadly.read_text()):
        os.kill(os.getpid(), signal.SIGKILL)
    return Done([storage.publish_bytes(f"{folder}/out/{number}", str(number).encode())])


def stage(folder: Path, function: Callable[..., Done] = write_number) -> Stage:
    return Stage("write", function, [Unit(f"u{i}", [], (str(folder), i)) for i in range(4)])


def test_a_killed_worker_is_retried_and_a_unit_that_always_kills_is_named(
    runner: RayCluster, tmp_path: Path
) -> None:
    """One death is made good; a unit that dies each time fails without a marker, and alone."""
    (tmp_path / "die-1").write_text("1")
    (tmp_path / "die-2").write_text("1000")
    run = Run(str(tmp_path), runner)
    with pytest.raises(UnitsFailedError, match=r"1 of 4 .*\(u2\): lost .* WorkerCrashedError ->"):
        run.do(stage(tmp_path))
    assert (tmp_path / "ran-1").read_text() == "xx"
    assert len((tmp_path / "ran-2").read_text()) == 2 * (1 + runners.RETRIES)
    markers = tmp_path / "units" / "g0" / "write"
    assert {p.name for p in markers.iterdir()} == {"u0.json", "u1.json", "u2.error.txt", "u3.json"}
    (tmp_path / "die-2").unlink()
    assert len(run.do(stage(tmp_path))) == 4
    assert [len((tmp_path / f"ran-{i}").read_text()) for i in (0, 1, 3)] == [1, 2, 1]
    assert {p.name for p in markers.iterdir()} == {f"u{i}.json" for i in range(4)}


# --- nodes that cannot do the work ------------------------------------------


def test_a_relative_folder_is_the_same_on_every_node(
    runner: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers, which Ray starts elsewhere, take relative places from where the command runs."""
    monkeypatch.chdir(tmp_path)
    Run("run", runner).do(stage(Path("run")))
    assert (tmp_path / "run" / "out" / "3").read_text() == "3"


def test_a_local_folder_that_a_node_does_not_see_is_refused(
    runner: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node with another disk writes nothing.

    Nodes of one machine share its disks: here the file by which a folder is known says otherwise.
    """
    monkeypatch.setattr(runners, "_proof", lambda _: "of another disk")
    with pytest.raises(ClusterError, match=r"does not see the run's folder .*-> .*s3://"):
        Run(str(tmp_path), runner).do(stage(tmp_path))
    assert not list(tmp_path.rglob("ran-*"))


def test_a_node_with_another_version_is_refused(
    runner: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two versions of the program would make two kinds of bytes."""
    monkeypatch.setattr(runners, "__version__", "99.0")
    with pytest.raises(ClusterError, match=r"has wit-builder .*, and not 99\.0 as here"):
        Run(str(tmp_path), runner).do(stage(tmp_path))


def test_a_node_without_the_code_is_refused(
    runner: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be imported on a node is named, with what to do."""
    (tmp_path / "only_here.py").write_text("def work(job): ...")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    with pytest.raises(ClusterError, match=r"No module named 'only_here'.* -> install"):
        Run(str(tmp_path), runner).do(stage(tmp_path, only_here.work))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "ray://x:10001"])
def test_an_address_without_a_cluster_is_named_at_once(address: str) -> None:
    """Ray alone would try for two minutes."""
    with pytest.raises(ClusterError, match=r"no Ray cluster: .* -> check --address"):
        RayCluster(address)
