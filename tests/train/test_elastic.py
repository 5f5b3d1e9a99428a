"""Two machines train from an S3 server; one is lost, and comes back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from benchmarks.s3_server import KEYS, S3Server, free_ports
from tests.train.hosts import Network, Node, two_nodes
from tests.train.wit_trains import Trains, expected_ids, rows_of

BUCKET = "wit-elastic"
SCRIPT = Path(__file__).parents[2] / "train/launch/multi_node.sh"
QUICK = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3"


@pytest.fixture
def network() -> Iterator[Network]:
    """Give two nodes with addresses of their own."""
    with two_nodes() as network:
        yield network


@pytest.fixture
def bucket(
    network: Network, shards: str, tmp_path: Path
) -> Iterator[tuple[S3Server, s3fs.S3FileSystem]]:
    """A real S3 server that the nodes reach, with a data set on it, and its client here."""
    with S3Server(tmp_path, BUCKET, network.server) as running:
        key, secret = KEYS.values()
        client = s3fs.S3FileSystem(
            key=key, secret=secret, endpoint_url=running.endpoint, skip_instance_cache=True
        )
        client.put(f"{shards}/", f"{BUCKET}/shards/", recursive=True)
        yield running, client


def on(node: Node, meeting: str, server: S3Server, recipe: Path) -> Trains:
    """Start to train on a node, as a user does there."""
    places = ("--out", f"s3://{BUCKET}/run", "--set", f"data.shards=s3://{BUCKET}/shards")
    endless = ("--set", "steps=1000000", "--set", "log.tensorboard=false")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"NODES": "1:2", "RENDEZVOUS": meeting, "PET_RDZV_CONF": QUICK, "PATH": path}
    return Trains(
        [str(SCRIPT), str(recipe), *places, *endless, "--json"],
        prefix=node.prefix,
        env={**server.environment, **env, "PROCESSES": "1"},
    )


@pytest.mark.slow
@pytest.mark.s3
def test_a_run_goes_on_without_a_lost_machine_and_with_it_again(
    network, bucket, recipe_file, shards
):
    """A machine is killed and started again: every step once, with one process's samples."""
    server, client = bucket
    meeting = f"{network.nodes[0].address}:{free_ports(1)[0]}"
    with on(network.nodes[0], meeting, server, recipe_file) as stays:
        with on(network.nodes[1], meeting, server, recipe_file) as lost:
            stays.until_said("2 processes on 2 machines")
            stays.until(6)
            lost.kill()
        stays.until_said("1 process on 1 machine")
        reached = stays.until(7)
        with on(network.nodes[1], meeting, server, recipe_file) as back:
            stays.until_said("2 processes on 2 machines")
            stays.until(reached + 6)
            back.send(signal.SIGTERM)
            assert (back.end(), stays.end()) == (130, 130)
    rows = rows_of(client.cat_file(f"{BUCKET}/run/metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["sample_ids"] for row in rows] == expected_ids(shards, len(rows))
    assert len(rows) >= reached + 6
