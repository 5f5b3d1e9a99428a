"""Starts the processes of a run on this machine, one of several machines perhaps.

It is ``torchrun`` in this process: torch's elastic agent finds the other machines' agents, starts
the processes, and starts them anew when one fails or when machines come and go. What is added: one
signal to stop the whole run after a step, errors in one line, an end where to start again is no
use, and a look at the meeting place before anybody waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
import xxhash
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    RendezvousTimeoutError,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from wit_builder import storage
from wit_builder.errors import TrainingError, WitError
from wit_train.launched import NOTES, Notes, folder_of
from wit_train.meeting import Meeting, find

INTERRUPTED = 130
"""Exit status of a run that was asked to stop, saved, and can go on."""

_NO_LIMIT = 1_000_000
"""Restarts; the processes themselves see whether they get anywhere."""
_LAST_CALL_S = 10
"""For so long do the fewest machines wait for more."""
_JOIN_S = 600
_BEAT_S, _BEATS = 5, 3
"""A machine that is silent for so many beats is not waited for any more."""
_SIOCGIFADDR = 0x8915
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


class _Over(Exception):  # noqa: N818 - not an error itself: it carries one
    """Ends the agent: a process said why to start again is no use."""


def is_wanted(processes: int, nodes: str) -> bool:
    """Return whether to train in several processes; not in one that a launcher started."""
    if "RANK" in os.environ:
        return False
    return processes_of(processes) > 1 or _nodes(nodes)[1] > 1


def start(arguments: Sequence[str], *, processes: int, nodes: str, rendezvous: str) -> int:
    """Train in several processes and return the exit status: 0 done, 130 stopped and can go on.

    Args:
        arguments: of ``python -m wit_train``, ``--out FOLDER`` among them.
        processes: on this machine; 0: one for each GPU, or one.
        nodes: machines, or the fewest and the most: ``2:8``.
        rendezvous: HOST:PORT of one of several machines; with one it may be empty.

    Raises:
        WitError: a process ended with it, and would do so again; or the machines do not meet.
    """
    fewest, most = _nodes(nodes)
    if most > 1 and not rendezvous:
        raise TrainingError(
            "where shall the machines meet?", where="--rendezvous", fix="give HOST:PORT of one"
        )
    count, run = processes_of(processes), storage.redact(folder_of(arguments))
    settings = _settings()
    meeting = find(rendezvous, most, float(settings["join_timeout"]))
    hush()
    with tempfile.TemporaryDirectory(prefix="wit-") as folder, _environment(meeting, count, folder):
        config = LaunchConfig(
            min_nodes=fewest,
            max_nodes=most,
            nproc_per_node=count,
            run_id=_name_of(run),
            role="train",
            rdzv_backend="c10d",
            rdzv_endpoint=f"{meeting.host}:{meeting.port}",
            rdzv_configs={**settings, "is_host": int(meeting.is_host)},
            max_restarts=_NO_LIMIT,
            local_addr=meeting.own_address,
            # the others are ours
            signals_to_handle="SIGHUP,SIGQUIT",
            # or else torch makes a folder, and leaves it behind
            logs_specs=DefaultLogsSpecs(log_dir=str(Path(folder, "logs"))),
        )
        return _Launcher(config, Notes(Path(folder)), meeting).run(arguments)


class _Launcher:
    """An agent under way."""

    def __init__(self, config: LaunchConfig, notes: Notes, meeting: Meeting) -> None:
        self._config, self._notes, self._meeting = config, notes, meeting
        self._asked = self._over = False

    def run(self, arguments: Sequence[str]) -> int:
        """Run the agent until all is over."""
        self._notes.make()
        try:
            with self._signals():
                elastic_launch(self._config, sys.executable)("-m", "wit_train", *arguments)
        except SignalException:
            return INTERRUPTED
        except (_Over, ChildFailedError, RendezvousError) as ended:
            self._explain(ended)
        except AttributeError:
            # torch's answer where a machine was one too many until the run ended (its agent has no
            # result); to train was not for it
            if self._notes.has_begun():
                raise
        return INTERRUPTED if self._notes.says("interrupted") else 0

    def _explain(self, ended: Exception) -> None:
        """Raise what is told of a run that did not end well; nothing if it was only stopped."""
        if error := self._notes.final():
            raise error from None
        if self._notes.says("interrupted"):
            return
        raise _told(ended, self._meeting, self._config.min_nodes) from ended

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        handlers: dict[signal.Signals, Any] = {
            signal.SIGINT: self._ask,
            signal.SIGTERM: self._ask,
            signal.SIGUSR1: self._ask,
            signal.SIGCHLD: self._look,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        """Have all processes of the run stop after a step; asked again by SIGINT, end at once."""
        if self._asked and number == signal.SIGINT:
            self._end_at_once(signal.SIGINT)
        first, self._asked = not self._asked, True
        # in this order: a process that comes aboard now sees one or gets the other
        self._notes.say("asked")
        told = list(filter(_is_child, self._notes.processes()))
        for process in told:
            os.kill(process, signal.SIGUSR1)
        if not told:
            raise SignalException("no process is under way", signal.Signals(number))
        if first:
            sys.stderr.write("stopping after this step; a second Ctrl-C ends at once\n")

    def _end_at_once(self, number: signal.Signals) -> NoReturn:
        self._over = True
        for process in filter(_is_child, self._notes.processes()):
            os.killpg(process, signal.SIGKILL)  # each leads a session, with those that decode
        raise SignalException("asked twice", number)

    def _look(self, *_: object) -> None:
        """A process ended: end all if it says that to start again is no use."""
        if self._over:
            return  # the agent is ending the others: not to be disturbed
        if self._notes.final():
            self._over = True
            raise _Over
        for process in self._notes.processes():
            if fatal := _killed_by(process):
                self._notes.leave(process)
                name = signal.Signals(fatal).name
                sys.stderr.write(f"process {process} was killed by {name}; all begin anew\n")


def _is_child(process: int) -> bool:
    """Return whether a process is ours, be it that it ended and the agent did not look yet."""
    try:
        os.waitid(os.P_PID, process, _LOOK)
    except ChildProcessError:
        return False
    return True


def _killed_by(process: int) -> int:
    """Return the signal that killed a child at which the agent did not look yet; 0: none did."""
    with contextlib.suppress(ChildProcessError):
        ended = os.waitid(os.P_PID, process, _LOOK)
        if ended and ended.si_code != os.CLD_EXITED and ended.si_status != signal.SIGTERM:
            return ended.si_status
    return 0


def _told(ended: Exception, meeting: Meeting, fewest: int) -> WitError:
    """Return in our words why an agent gave up."""
    where = f"{meeting.host}:{meeting.port}"
    if isinstance(ended, RendezvousClosedError):
        return TrainingError(
            "the run was ended on another machine", where=where, fix="see what is said there"
        )
    if isinstance(ended, RendezvousTimeoutError):
        return TrainingError(
            f"fewer than {fewest} machines came",
            where=where,
            fix="start wit train with the same --out and --rendezvous on the others, too",
        )
    if isinstance(ended, RendezvousConnectionError):
        return TrainingError(
            "the machine where all meet is gone",
            where=where,
            fix="start again, on it too, to go on from the last checkpoint",
        )
    return TrainingError(f"the processes cannot be kept together: {ended}", where=where)


def processes_of(asked: int) -> int:
    """Return how many processes to start on this machine; 0: one for each GPU, or one."""
    return asked or torch.cuda.device_count() or 1


def _nodes(text: str) -> tuple[int, int]:
    try:
        found = [int(word) for word in text.split(":")]
    except ValueError:
        found = []
    if len(found) not in (1, 2) or not 0 < found[0] <= found[-1]:
        raise TrainingError(
            f"{text!r} is no number of machines", where="--nodes", fix="such as 4, or 2:8"
        )
    return found[0], found[-1]


def _name_of(run: str) -> str:
    """Return what tells a run apart from others that meet at the same place."""
    place = run if storage.is_remote(run) else str(Path(run).resolve())
    return f"wit-{xxhash.xxh3_64_hexdigest(place.encode())}"


def _settings() -> dict[str, str]:
    """Return torch's settings of a rendezvous; PET_RDZV_CONF goes before ours, as in torchrun."""
    given = os.environ.get("PET_RDZV_CONF", "")
    return {
        "last_call_timeout": str(_LAST_CALL_S),
        "join_timeout": str(_JOIN_S),
        "keep_alive_interval": str(_BEAT_S),
        "keep_alive_max_attempt": str(_BEATS),
        **dict(pair.partition("=")[::2] for pair in given.split(",") if pair),
    }


@contextlib.contextmanager
def _environment(meeting: Meeting, processes: int, notes: str) -> Iterator[None]:
    """Set what the agent and its processes read from the environment; what users set stays."""
    before = dict(os.environ)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    if device := _device_of(meeting.own_address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", device)
    # or else a round finds in the store what the round before left there
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ[NOTES] = notes
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def hush() -> None:
    """Silence the agent: what it says is told in our words; LOGLEVEL lets it speak, as torchrun."""
    if "LOGLEVEL" not in os.environ:
        logger = logging.getLogger("torch.distributed.elastic")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False


def _device_of(address: str) -> str:
    """Return the network device that has an IPv4 address; empty if that cannot be told."""
    if sys.platform != "linux":
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no IPv4 address
                wanted = struct.pack("256s", name.encode()[:15])
                found = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, wanted)[20:24]
                if socket.inet_ntoa(found) == address:
                    return name
    return ""
