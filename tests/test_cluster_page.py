"""The files of the page "On a cluster" do what the page says, as far as one machine can show."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # Ray brings it; no stubs

from benchmarks.s3_server import free_ports
from wit_builder import storage
from wit_builder.cli import app
from wit_builder.demo import site, warc

REPOSITORY = Path(__file__).parent.parent
LAUNCH = REPOSITORY / "docs" / "cluster"
STAND_INS = {
    # its options go by: all "nodes" are this machine
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'if [ "$1" = requeue ]; then touch "$REQUEUED"; else echo 127.0.0.1; fi',
    "wit": f'exec {sys.executable} -m wit_builder "$@"',
    "ray": f'exec {Path(sys.executable).parent}/ray "$@"',
}


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job of two nodes: Slurm is not here, so stand-ins run its commands."""
    for name, script in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    folder = tempfile.mkdtemp(prefix="ray-")
    yield os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RAY_TMPDIR": folder,
        "RAY_PORT": str(free_ports(1)[0]),
        "RAY_CORES": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "REQUEUED": str(tmp_path / "requeued"),
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "64",
    }
    shutil.rmtree(folder)


@pytest.fixture
def recipe(data_dir: Path, tmp_path: Path) -> str:
    """A recipe over WARC files of the demo's web."""
    plan = site.plan(site.Settings(data=str(data_dir), concepts=24))
    warc.write_warcs(str(tmp_path), plan)
    (tmp_path / "queries.txt").write_text("\n".join(c.name for c in plan.concepts))
    queries, source = 'queries = { custom = ["queries.txt"] }', 'kind = "warc", paths = ["*.gz"]'
    (tmp_path / "recipe.toml").write_text(f"{queries}\ncrawl = {{ sources = [{{ {source} }}] }}\n")
    return str(tmp_path / "recipe.toml")


@pytest.mark.slow
@pytest.mark.s3
def test_the_slurm_script_builds_in_a_bucket(
    recipe: str, slurm: dict[str, str], tmp_path: Path, s3_folder: str
) -> None:
    """Its `ray start` and `wit build` lines make a cluster of two nodes, which leaves nobody."""
    script = (LAUNCH / "wit.sbatch").read_text().replace("wit build", "wit match")
    (tmp_path / "wit.sbatch").write_text(script)  # the archives' pictures are on no web here
    command = ["bash", str(tmp_path / "wit.sbatch"), recipe, f"{s3_folder}/run"]
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(command, env=slurm, stdout=log, stderr=log, check=False)
    said = (tmp_path / "log").read_text()
    assert done.returncode == 0, said
    assert said.count("Ray runtime started") == 2
    assert not (tmp_path / "requeued").exists()
    assert storage.list_files(f"{s3_folder}/run/g0/matched", ".parquet")


def test_the_slurm_script_queues_an_interrupted_build_again(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    """SIGTERM, which Slurm sends before the time limit, reaches the build; the job comes again."""
    (tmp_path / "ray").write_text("#!/bin/bash\n")
    os.mkfifo(tmp_path / "building")
    os.mkfifo(tmp_path / "never")
    waits = f"trap 'exit 130' TERM; echo > {tmp_path}/building; read < {tmp_path}/never"
    (tmp_path / "wit").write_text(f"#!/bin/bash\n{waits}\n")
    command = ["bash", str(LAUNCH / "wit.sbatch"), "recipe.toml", "run"]
    with (
        socket.create_server(("127.0.0.1", int(slurm["RAY_PORT"]))),  # as a head would
        subprocess.Popen(command, env=slurm, stdout=subprocess.DEVNULL) as job,
    ):
        (tmp_path / "building").read_text()
        job.terminate()
    assert job.returncode == 130
    assert (tmp_path / "requeued").exists()


def test_the_kubernetes_file_names_one_image_and_one_secret() -> None:
    """The RayJob parses, all its pods are alike, and its command is one that `wit` takes."""
    job = yaml.safe_load((LAUNCH / "kuberay.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [c for group in groups for c in group["template"]["spec"]["containers"]]
    assert len({pod["image"] for pod in pods}) == 1
    assert {e["secretRef"]["name"] for pod in pods for e in pod["envFrom"]} == {"wit-s3"}
    words = job["spec"]["entrypoint"].split()
    app.parse_args(words[1:], exit_on_error=False, print_error=False)
