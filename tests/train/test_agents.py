"""Two torchrun agents with addresses of their own stream from an S3 server that is killed."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import s3fs

from benchmarks.s3_server import KEYS, S3Server, free_ports
from tests.train.hosts import Network, two_nodes
from wit_train.blocks import Layout
from wit_train.stream import Look, Pace, Stream

BUCKET = "wit-agents"
STEPS, PAUSE = 40, 10
BATCH = 8
LAYOUT, LOOK = Layout(lanes=4, seed=3), Look(image_size=32)

# Each rank writes its samples of every step, and gathers those of all. After some steps it says so
# and goes on when it is told to, both through a pipe with a name.
TRAIN = f"""
import os, sys
from pathlib import Path
import torch
from torch import distributed
from wit_train.blocks import Layout
from wit_train.stream import Look, Pace, Stream

rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
folder = Path(sys.argv[1])
distributed.init_process_group("gloo")
stream = Stream(
    "s3://{BUCKET}/shards", batch_size={BATCH}, world_size=world_size, rank=rank,
    layout=Layout(lanes=4, seed=3), look=Look(image_size=32), pace=Pace(workers=1),
)
with (folder / f"ids-{{rank}}").open("w") as ids:
    for batch in stream:
        mine = torch.from_numpy(batch.sample_ids)
        parts = [torch.empty_like(mine) for _ in range(world_size)]
        distributed.all_gather(parts, mine)
        print(*torch.cat(parts).tolist(), file=ids)
        if batch.step + 1 == {PAUSE}:
            (folder / f"paused-{{rank}}").write_text("yes")
            (folder / f"go-{{rank}}").open().readline()
        if batch.step + 1 == {STEPS}:
            break
(folder / f"retries-{{rank}}").write_text(str(stream.stats.retries))
distributed.destroy_process_group()
"""


@pytest.fixture
def network() -> Iterator[Network]:
    """Give two nodes with addresses of their own."""
    with two_nodes() as network:
        yield network


@pytest.fixture
def server(network: Network, shards: str, tmp_path_factory) -> Iterator[S3Server]:
    """A real S3 server that the nodes reach, with a data set on it."""
    with S3Server(tmp_path_factory.mktemp("s3"), BUCKET, network.server) as running:
        key, secret = KEYS.values()
        bucket = s3fs.S3FileSystem(
            key=key, secret=secret, endpoint_url=running.endpoint, skip_instance_cache=True
        )
        bucket.put(f"{shards}/", f"{BUCKET}/shards/", recursive=True)
        yield running


def start_agents(network: Network, server: S3Server, folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start torchrun on every node; the first one's address is where they meet."""
    script = folder / "train.py"
    script.write_text(TRAIN)
    meeting = f"{network.nodes[0].address}:{free_ports(1)[0]}"
    return [
        subprocess.Popen(
            [
                *node.prefix,
                *(
                    sys.executable,
                    "-m",
                    "torch.distributed.run",
                    "--nnodes=2",
                    "--nproc-per-node=1",
                ),
                *("--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}", "--rdzv-id=test"),
                *(f"--rdzv-conf=is_host={int(rank == 0)}", f"--local-addr={node.address}"),
                *(f"--node-rank={rank}", str(script), str(folder)),
            ],
            env={**os.environ, **server.environment, "GLOO_SOCKET_IFNAME": node.device},
            cwd=folder,
        )
        for rank, node in enumerate(network.nodes)
    ]


class Pause:
    """Where a rank stops until it is told to go on; two pipes with names, open on this side."""

    def __init__(self, folder: Path, rank: int) -> None:
        names = [folder / f"paused-{rank}", folder / f"go-{rank}"]
        for name in names:
            os.mkfifo(name)
        self._paused, self._go = (os.open(name, os.O_RDWR) for name in names)

    def wait_for(self) -> None:
        ready, _, _ = select.select([self._paused], [], [], 120)
        assert ready, "the rank has not come so far"

    def end(self) -> None:
        os.write(self._go, b"yes\n")
        os.close(self._paused)


def hang_up_on(server: S3Server, callers: int) -> None:
    """Stand in for a server that is dead, until so many addresses have called."""
    heard: set[str] = set()
    with socket.create_server(server.address) as stand_in:
        stand_in.settimeout(60)
        while len(heard) < callers:
            connection, (address, _) = stand_in.accept()
            connection.close()
            heard.add(address)


@pytest.mark.slow
@pytest.mark.s3
def test_agents_go_on_when_the_server_comes_back(network, server, shards, tmp_path):
    """The server is killed and started again: the batches are those of one process, all local."""
    pauses = [Pause(tmp_path, rank) for rank in (0, 1)]
    agents = start_agents(network, server, tmp_path)
    try:
        for pause in pauses:
            pause.wait_for()
        server.kill()
        for pause in pauses:
            pause.end()
        hang_up_on(server, callers=len({node.caller for node in network.nodes}))
        server.start()
        assert [agent.wait(120) for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()
    local = Stream(shards, batch_size=BATCH, layout=LAYOUT, look=LOOK, pace=Pace(workers=0))
    expected = [batch.sample_ids.tolist() for batch in islice(local, STEPS)]
    for rank in (0, 1):
        lines = (tmp_path / f"ids-{rank}").read_text().splitlines()
        assert [[int(word) for word in line.split()] for line in lines] == expected
    assert sum(int((tmp_path / f"retries-{rank}").read_text()) for rank in (0, 1)) > 0
