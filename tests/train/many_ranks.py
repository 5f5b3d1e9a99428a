"""Ranks of a test: real processes and real gloo, forked from a server that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.s3_server import free_ports

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["wit_train.loop", "wit_train.resize", "tests.train.many_ranks"])

WAIT_S = 120


KILLED = "killed"
"""Stands for the result of a rank that was killed."""


def over_ranks(world_size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what a top-level function gave on each rank, or the error that it raised there.

    Its process finds the others as one that torchrun started does.
    """
    (port,) = free_ports(1)
    pipes, processes = [], []
    for rank in range(world_size):
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=_rank, args=(theirs, rank, world_size, port, work, arguments)
        )
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        return [_result(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.join(WAIT_S)
            process.kill()


def _result(pipe: Connection) -> Any:
    assert pipe.poll(WAIT_S), "a rank says nothing"
    try:
        return pipe.recv()
    except EOFError:
        return KILLED


def _rank(
    pipe: Connection,
    rank: int,
    world_size: int,
    port: int,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        result = work(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
        result = error
    pipe.send(result)
