"""The processes of a run: who trains, who waits, and what they tell each other.

``torchrun`` (or ``wit train``, which is its kin) starts the processes and says through the
environment how many there are. Of W processes the largest W' <= W that divides the lanes train, so
that each owns as many lanes as any other; the others wait until the run ends or begins anew.

Legend: B rows of a rank, G rows of all ranks, D embedding.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed import DistError, DistStoreError, ProcessGroup
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from wit_builder.errors import PeerError, TrainingError

T = TypeVar("T")

MAKE_WAY, STOP = 1, 2
"""What ranks agree on: to end for an agent that starts them anew, or for good; the higher wins."""

_OVER = "over"
"""Set in the store when those that train are done; each that waited then sets its ``_LEFT``."""
_LEFT = "left"
_BEGUN = "begun"
"""How often a first rank began with this store: not twice, or it finds what the first left."""
_HOST = "host"
_GLOO = "gloo/transport"
"""In what gloo says when a connection is lost: a plain RuntimeError."""
_POLL_S = 30.0
_COLLECTIVE_GRACE_S = 60.0
"""So much later than the watch gives up does a collective, which cannot say who is missing."""


class Ranks:
    """This process among those that train.

    Attributes:
        rank: of this process, from 0.
        world_size: how many train.
        local_rank: of this process on its machine.
        total: how many were started; those beyond ``world_size`` wait.
        device: what this process computes on.
        store: through which processes leave each other notes; None in a world of one.
    """

    def __init__(
        self,
        rank: int = 0,
        world_size: int = 1,
        *,
        total: int = 1,
        device: torch.device | None = None,
        store: Store | None = None,
        control: ProcessGroup | None = None,
    ) -> None:
        """Stand for a process; in a world of more than one, its process group must exist.

        ``control`` is a group of the CPU: notes between hosts stay off the GPU's own group, whose
        order they must not disturb.
        """
        self.rank, self.world_size, self.total, self.store = rank, world_size, total, store
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = device or _device(self.local_rank)
        self._control = control
        self._asked: tuple[Any, torch.Tensor] | None = None
        self._verdict = 0
        self.gathering: Callable[[], object] = lambda: None

    def gather(self, x_BD: torch.Tensor) -> torch.Tensor:
        """Return all ranks' rows [G, D] in rank order; gradients flow back to their owners."""
        return x_BD if self.world_size == 1 else _Gather.apply(x_BD)

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """Return the average over ranks of a tensor on the device, without gradient."""
        if self.world_size == 1:
            return x
        x = x.detach().clone()
        distributed.all_reduce(x)
        return x / self.world_size

    def all_rows(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows of all ranks, in rank order, of a tensor on the CPU."""
        if self.world_size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.world_size)]
        distributed.all_gather(parts, x, group=self._control)
        return torch.cat(parts)

    def gathered(self, own: T) -> list[T]:
        """Return what every rank gives, in rank order; it is pickled on the way.

        ``gathering`` is called before the wait for the others: for a watch.
        """
        self.gathering()
        if self.world_size == 1:
            return [own]
        parts: list[Any] = [None] * self.world_size
        distributed.all_gather_object(parts, own, group=self._control)
        return parts

    def agreed(self, *, flag: int) -> int:
        """Return the highest flag of any rank at the call before this one: the same on every rank.

        Nobody waits for the ranks that are slower at this call, only for their previous one.
        """
        if self.world_size == 1:
            self._verdict = flag
            return flag
        before, mine = self._asked, torch.tensor([int(flag)])
        work = distributed.all_reduce(
            mine, distributed.ReduceOp.MAX, group=self._control, async_op=True
        )
        self._asked = (work, mine)
        if before is None:
            return 0
        before[0].wait()
        self._verdict = int(before[1])
        return self._verdict

    def broadcast(self, tree: Any, told: Callable[[], object] = lambda: None) -> Any:
        """Return rank 0's tree of dicts, lists, tuples, tensors on the CPU and plain values.

        ``told`` is called for every tensor that has come.
        """
        if self.world_size == 1:
            return tree
        tensors = list[torch.Tensor]()
        outline = [_outline(tree, tensors) if self.rank == 0 else None]
        distributed.broadcast_object_list(outline, src=0, group=self._control)

        def fill(tensor: torch.Tensor | None, hole: _Hole) -> torch.Tensor:
            told()
            return self._from_first(tensor, hole)

        return _filled(outline[0], iter(tensors), fill)

    def take_from_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors on the device with those of rank 0."""
        for tensor in tensors if self.world_size > 1 else ():
            distributed.broadcast(tensor, src=0)

    def _from_first(self, tensor: torch.Tensor | None, hole: _Hole) -> torch.Tensor:
        if tensor is None:
            tensor = torch.empty_strided(hole.shape, hole.stride, dtype=hole.dtype)
        if tensor.numel():  # as bytes: gloo does not know every type
            in_memory = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
            distributed.broadcast(in_memory, src=0, group=self._control)
        return tensor

    def close(self) -> None:
        """End what is under way between the ranks, all being alive; let those that wait go."""
        if self._asked:
            self._asked[0].wait()
            self._asked = None
        if self.store is not None and self.rank == 0 and self.total > self.world_size:
            self.store.set(_OVER, str(self._verdict))
            with contextlib.suppress(DistStoreError):  # one that is gone needs not be told
                waiting = [f"{_LEFT}/{rank}" for rank in range(self.world_size, self.total)]
                self.store.wait(waiting, timedelta(seconds=_POLL_S))


class _Gather(torch.autograd.Function):
    """Rows of all ranks; the gradient of a rank's rows is the sum of what every rank gives them."""

    @staticmethod
    def forward(ctx: Any, x_BD: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(x_BD)
        x_GD = x_BD.new_empty((len(x_BD) * distributed.get_world_size(), *x_BD.shape[1:]))
        distributed.all_gather_into_tensor(x_GD, x_BD.contiguous())
        return x_GD

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient_GD = gradients[0].contiguous()
        if gradient_GD.is_cuda:  # gloo cannot
            gradient_BD = gradient_GD.new_empty((ctx.rows, *gradient_GD.shape[1:]))
            distributed.reduce_scatter_tensor(gradient_BD, gradient_GD)
            return gradient_BD
        distributed.all_reduce(gradient_GD)
        first = distributed.get_rank() * ctx.rows
        return gradient_GD[first : first + ctx.rows]


class _Hole:
    """Where a tensor stands in the outline of a tree, and how it lies in memory.

    A fused optimiser walks weights and their moments by address, so that each moment must lie as
    its weight does: channels last, where the weight does.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.shape, self.stride, self.dtype = tuple(tensor.shape), tensor.stride(), tensor.dtype


def _outline(tree: Any, tensors: list[torch.Tensor]) -> Any:
    """Return the tree with holes for its tensors, which are appended to a list."""
    if isinstance(tree, torch.Tensor):
        tensors.append(_without_gaps(tree))
        return _Hole(tensors[-1])
    if isinstance(tree, dict):
        return {key: _outline(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_outline(value, tensors) for value in tree)
    return tree


def _without_gaps(tensor: torch.Tensor) -> torch.Tensor:
    lies_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor if lies_last else tensor.contiguous()


def _filled(outline: Any, tensors: Iterator[torch.Tensor], fill: Any) -> Any:
    """Return the tree of an outline, each hole filled by a function of the own tensor, if any."""
    if isinstance(outline, _Hole):
        return fill(next(tensors, None), outline)
    if isinstance(outline, dict):
        return {key: _filled(value, tensors, fill) for key, value in outline.items()}
    if isinstance(outline, list | tuple):
        return type(outline)(_filled(value, tensors, fill) for value in outline)
    return outline


def training_world(total: int, lanes: int) -> int:
    """Return how many of so many processes train: the largest number that divides the lanes."""
    return next(w for w in range(min(total, lanes), 0, -1) if lanes % w == 0)


@contextlib.contextmanager
def joined(lanes: int, timeout_s: float) -> Iterator[Ranks | None]:
    """Give this process's place among those that train; None after it waited beside them.

    Args:
        lanes: V; those that train divide it.
        timeout_s: after which a rank that does not move is given up; collectives wait a little
            longer, since they cannot tell who is missing.

    Raises:
        PeerError: the processes do not find each other, or one is gone.
    """
    if "RANK" not in os.environ:
        yield Ranks()
        return
    rank, total = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    world_size, store = training_world(total, lanes), _store(timeout_s)
    if rank >= world_size:
        _wait_beside(store, rank)
        yield None
        return
    device = _device(int(os.environ["LOCAL_RANK"]))
    with _told_of_peers(rank):
        control = None
        if world_size > 1:
            timeout = timedelta(seconds=timeout_s + _COLLECTIVE_GRACE_S)
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=PrefixStore("group", store),
                rank=rank,
                world_size=world_size,
                timeout=timeout,
                device_id=device if device.type == "cuda" else None,
            )
            found = distributed.new_group(backend="gloo", timeout=timeout)
            control = found if isinstance(found, ProcessGroup) else None  # this process is in it
        if rank == 0 and total > world_size:
            _tell_who_waits(store, range(world_size, total), world_size, lanes)
        ranks = Ranks(rank, world_size, total=total, device=device, store=store, control=control)
        yield ranks
        # not after an exception: a peer may be gone, and to wait for it would take the timeout
        ranks.close()
    if world_size > 1:
        distributed.destroy_process_group()


@contextlib.contextmanager
def _told_of_peers(rank: int) -> Iterator[None]:
    """Turn what a collective says when a peer is gone into one line.

    Raises:
        PeerError: a peer is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, DistError) or _GLOO in str(error)):
            raise
        raise PeerError(
            f"another rank is gone, or cannot be reached: {_first_sentence(error)}",
            where=f"rank {rank} on {socket.gethostname()}",
            fix="it says why itself; starting again goes on from the last checkpoint",
        ) from error


def _first_sentence(error: Exception) -> str:
    """Return what a collective says, without where in its code, and how it consoles the reader."""
    return re.sub(r"^\[[^\]]*\] ", "", str(error).splitlines()[0]).split(". ")[0]


def _store(timeout_s: float) -> Store:
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
    except (DistError, RuntimeError, ValueError) as error:
        raise PeerError(
            f"the processes do not find each other: {_first_sentence(error)}",
            where=f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}",
            fix="another port, or --rendezvous with an address that all nodes reach",
        ) from error
    own = PrefixStore("wit", store)
    if os.environ["RANK"] == "0" and own.add(_BEGUN, 1) > 1:
        raise TrainingError(
            "torch's agent gives every round the store of the first",
            where="TORCH_DISABLE_SHARE_RDZV_TCP_STORE",
            fix="set it to 1 for torchrun --rdzv-backend=c10d, or use wit train, which does",
        )
    return own


def _wait_beside(store: Store, rank: int) -> None:
    """Return when those that train are done.

    Raises:
        PeerError: they are gone, or make way; whoever started the processes starts them anew.
    """
    try:
        store.set(f"{_HOST}/{rank}", socket.gethostname())
        while True:
            with contextlib.suppress(DistStoreError):
                store.wait([_OVER], timedelta(seconds=_POLL_S))
                verdict = int(store.get(_OVER))
                store.set(f"{_LEFT}/{rank}", "yes")
                break
    except DistError as error:
        raise PeerError(
            "the ranks that train are gone", where=f"rank {rank}", fix="start again"
        ) from error
    if verdict == MAKE_WAY:
        raise PeerError("the ranks that train make way", where=f"rank {rank}", fix="start again")


def _tell_who_waits(store: Store, waiting: range, world_size: int, lanes: int) -> None:
    who = ", ".join(f"rank {rank} on {store.get(f'{_HOST}/{rank}').decode()}" for rank in waiting)
    sys.stderr.write(
        f"{world_size} processes train, the most that divide {lanes} lanes evenly; waiting: {who}\n"
    )


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= (count := torch.cuda.device_count()):
        raise TrainingError(
            f"{count} GPUs, and this is process {local_rank + 1} of the machine",
            where=f"LOCAL_RANK={local_rank}",
            fix="start as many processes as there are GPUs",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
