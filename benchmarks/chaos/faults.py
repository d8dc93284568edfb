"""What goes wrong: each fault strikes a running job, lasts, and is over."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.chaos.proxy import Proxy
from fl_opt.deployment import LocalDeployment
from fl_opt.deployment.home import CLIENTAPP, SERVERAPP
from fl_opt.deployment.local import SUPERLINK, supernode_name

_MOMENT = 20.0  # seconds to wait for a process that a fault is to strike
_LASTS = (2.0, 6.0)  # seconds


@dataclass
class Stage:
    """What a fault may touch.

    Attributes
    ----------
    flower : LocalDeployment
    proxy : Proxy
        Between SuperNodes and SuperLink.
    folder : Path
        Of the job.
    random : random.Random
        Chooses victims and how long things last.
    """

    flower: LocalDeployment
    proxy: Proxy
    folder: Path
    random: random.Random

    @property
    def victim(self) -> int:
        """Choose a SuperNode."""
        return self.random.randrange(self.flower.num_supernodes)

    def at_work(self, index: int) -> list[psutil.Process]:
        """Wait for a SuperNode to handle a message; return the processes that do."""
        return _wait_for(lambda: self.flower.apps(CLIENTAPP, supernode_name(index)))

    def last(self) -> float:
        """Let a while pass; return how long, in seconds."""
        seconds = self.random.uniform(*_LASTS)
        time.sleep(seconds)
        return seconds


class MissedError(Exception):
    """There was nothing to strike: the process did not come in time."""


Fault = Callable[[Stage], str]
"""Strikes, waits, mends; returns what it has done, in a few words."""


def kill_supernode(stage: Stage) -> str:
    """End a SuperNode and all it started; start it anew, as another node."""
    index, flower = stage.victim, stage.flower
    gone = flower.node_id(index)
    flower.kill_supernode(index)
    flower.start_supernode(index)
    if gone is not None:  # or its messages are answered when two heartbeats are missing
        flower.unregister_supernode(gone)
    return f"SuperNode {index}"


def kill_client(stage: Stage) -> str:
    """End the process that handles a message; the SuperNode stays."""
    index = stage.victim
    stage.at_work(index)[0].kill()
    return f"of SuperNode {index}"


def kill_serverapp(stage: Stage) -> str:
    """End the server's process."""
    _wait_for(lambda: stage.flower.apps(SERVERAPP))
    stage.flower.kill_serverapp()
    return ""


def kill_superlink(stage: Stage) -> str:
    """End the SuperLink and the ServerApp with it; start it on the same database."""
    stage.flower.kill_superlink()
    seconds = stage.last()
    stage.flower.start_superlink()
    return f"away {seconds:.1f} s"


def stop_supernode(stage: Stage) -> str:
    """Freeze a SuperNode and all it started."""
    index = stage.victim
    return (
        _frozen(stage, stage.flower.processes(supernode_name(index))) + f", SuperNode {index}"
    )


def stop_client(stage: Stage) -> str:
    """Freeze the process that handles a message."""
    index = stage.victim
    return _frozen(stage, stage.at_work(index)) + f", SuperNode {index}"


def stop_serverapp(stage: Stage) -> str:
    """Freeze the server's process."""
    return _frozen(stage, _wait_for(lambda: stage.flower.apps(SERVERAPP)))


def stop_superlink(stage: Stage) -> str:
    """Freeze the SuperLink, but not the ServerApp that it has started."""
    processes = [
        process
        for process in stage.flower.processes(SUPERLINK)
        if process.pid not in {app.pid for app in stage.flower.apps(SERVERAPP)}
    ]
    return _frozen(stage, processes)


def delay_link(stage: Stage) -> str:
    """Hold up all that goes between SuperNodes and SuperLink."""
    stage.proxy.delay = stage.random.uniform(0.2, 0.8)
    told = f"{stage.proxy.delay * 1000:.0f} ms each way"
    seconds = stage.last()
    stage.proxy.heal()
    return f"{told}, {seconds:.1f} s long"


def lose_packets(stage: Stage) -> str:
    """Hold up a fifth of all pieces until they would have been sent again; reset some."""
    stage.proxy.loss, stage.proxy.reset = 0.2, 0.05
    seconds = stage.last()
    stage.proxy.heal()
    return f"20% lost, 5% reset, {seconds:.1f} s long"


def cut_link(stage: Stage) -> str:
    """End all connections of SuperNodes and refuse new ones."""
    stage.proxy.cut()
    seconds = stage.last()
    stage.proxy.heal()
    return f"{seconds:.1f} s long"


def fill_disk(stage: Stage) -> str:
    """Leave the server no room for a checkpoint: its files may not grow beyond 8 kB."""
    [server, *_] = _wait_for(lambda: stage.flower.apps(SERVERAPP))
    checkpoint = stage.folder / "checkpoint" / "manifest.json"
    before = checkpoint.stat().st_mtime_ns
    limit = server.rlimit(psutil.RLIMIT_FSIZE)
    server.rlimit(psutil.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    seconds = stage.last() + stage.last()
    untouched = checkpoint.stat().st_mtime_ns == before
    with contextlib.suppress(psutil.Error):
        server.rlimit(psutil.RLIMIT_FSIZE, limit)
    return f"{seconds:.1f} s long, last checkpoint {'kept' if untouched else 'replaced'}"


def jump_forward(stage: Stage) -> str:
    """Put the clock of server and clients forward by an hour, and back."""
    return _clock(stage, 3600.0)


def jump_back(stage: Stage) -> str:
    """Put the clock of server and clients back by an hour, and forward."""
    return _clock(stage, -3600.0)


FAULTS: dict[str, Fault] = {
    "SuperNode killed": kill_supernode,
    "client process killed": kill_client,
    "ServerApp killed": kill_serverapp,
    "SuperLink killed": kill_superlink,
    "SuperNode frozen": stop_supernode,
    "client process frozen": stop_client,
    "ServerApp frozen": stop_serverapp,
    "SuperLink frozen": stop_superlink,
    "link delayed": delay_link,
    "link lossy": lose_packets,
    "link cut": cut_link,
    "disk full": fill_disk,
    "clock put forward": jump_forward,
    "clock put back": jump_back,
}


def _wait_for(find: Callable[[], Iterable[psutil.Process]]) -> list[psutil.Process]:
    deadline = time.monotonic() + _MOMENT
    while not (found := list(find())):
        if time.monotonic() > deadline:
            raise MissedError
        time.sleep(0.02)
    return found


def _frozen(stage: Stage, processes: Iterable[psutil.Process]) -> str:
    stopped = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGSTOP)
            stopped.append(process)
    seconds = stage.last()
    for process in stopped:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)
    return f"{seconds:.1f} s long"


def _clock(stage: Stage, offset: float) -> str:
    path = stage.folder / "clock.json"
    path.write_text(json.dumps(offset))
    seconds = stage.last()
    path.unlink()
    return f"{offset:+.0f} s, {seconds:.1f} s long"
