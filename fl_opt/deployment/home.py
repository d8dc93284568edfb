"""Flower's commands and processes in a home of their own, ended without a trace.

A :class:`FlowerHome` is a temporary ``FLWR_HOME``. Whatever runs with it in its environment
is ended, one by one, when the home is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil

from fl_opt.errors import FlOptError

LOOPBACK = "127.0.0.1"
SERVERAPP, CLIENTAPP = "flwr-serverapp", "flwr-clientapp"  # the programs that run the apps
_PROGRAMS = Path(sys.executable).parent  # where pip puts Flower's commands
_PART = "FL_OPT_PART"  # environment variable: what launched this process, by name
_STOP_TIMEOUT = 5.0  # seconds between asking a process to end and ending it


class DeploymentError(FlOptError):
    """A Flower process did not start, or a run did not finish."""


class FlowerHome:
    """A temporary ``FLWR_HOME``, the environment for Flower's commands, and their end."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fl-opt-flwr-"))
        self._launched: dict[str, subprocess.Popen[bytes]] = {}
        self.environment: dict[str, str] = {
            "OMP_NUM_THREADS": "1",  # all clients share this machine
            **os.environ,
            "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ.get('PATH', '')}",
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            # How often the SuperLink and each SuperNode look for a process to start: each
            # message waits for that. Flower's 1.0 s costs half a second a message; at 0.2 an
            # idle deployment of two takes 16% of a processor, at 0.05 it is 42%.
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        }

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        """Start what has to be there before the first run."""
        raise NotImplementedError

    def _flwr(self, *arguments: str, timeout: float = 60.0) -> dict[str, Any]:
        """Call ``flwr`` and read the JSON object that it prints."""
        done = subprocess.run(
            [self._program("flwr"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        start = done.stdout.find("{")
        if start < 0:
            text = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
            raise DeploymentError(f"flwr {arguments[0]}: {text.splitlines()[-1]}")
        answer: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[start:])[0]
        return answer

    @staticmethod
    def _program(name: str) -> str:
        return str(_PROGRAMS / name)

    def _launch(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a long-lived process in a session of its own; its output goes to a log.

        All that it starts in turn carries its name: see :meth:`processes`.
        """
        if name in self._launched and self._launched[name].poll() is None:
            raise DeploymentError(f"{name} is running already")
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**self.environment, _PART: name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle, in order
            )
        self._launched[name] = process
        return process

    def _kill(self, name: str) -> None:
        """End a launched process and all that it started, with SIGKILL."""
        launched = self._launched[name]
        if launched.poll() is not None:
            raise DeploymentError(f"{name} is not running: it ended by itself or was killed")
        launched.kill()  # first, so that it starts nothing more
        launched.wait()
        self._kill_all(lambda: self.processes(name))

    @staticmethod
    def _kill_all(find: Callable[[], Iterator[psutil.Process]]) -> None:
        """Send SIGKILL to what ``find`` yields until it yields nothing any more."""
        while remaining := list(find()):
            for process in remaining:
                _send(process, signal.SIGKILL)
            time.sleep(0.05)

    def close(self) -> None:
        """End every process of this home and delete the temporary folder."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes():
                _send(process, sign)
            self._wait_for_the_end()
        for launched in self._launched.values():
            launched.wait()
        self._launched.clear()
        shutil.rmtree(self.home, ignore_errors=True)

    def _wait_for_the_end(self) -> None:
        deadline = time.monotonic() + _STOP_TIMEOUT
        while any(self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)

    def processes(self, part: str | None = None) -> Iterator[psutil.Process]:
        """Yield the processes of this home: those started here, and all started by them.

        Flower detaches some of them. What they have in common is ``FLWR_HOME`` in their
        environment, a folder that nobody else was ever told.

        Parameters
        ----------
        part : str, optional
            Only the process launched under this name, and all started by it.
        """
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except psutil.Error:  # it has ended, or is another user's
                continue
            if environment.get("FLWR_HOME") != str(self.home):
                continue
            if part is None or environment.get(_PART) == part:
                yield process

    def ended(self) -> list[str]:
        """Return the names of what was started here and is not running any more."""
        return [name for name, one in self._launched.items() if one.poll() is not None]

    def last_line(self, name: str) -> str:
        """Return the last line of the log of what was started under a name."""
        lines = self._read_log(name).strip().splitlines()
        return lines[-1] if lines else "nothing"

    def apps(self, program: str, part: str | None = None) -> Iterator[psutil.Process]:
        """Yield the processes that run an app by one of Flower's programs."""
        for process in self.processes(part):
            with contextlib.suppress(psutil.Error):
                # a script: the interpreter comes before it
                if any(Path(word).name == program for word in process.cmdline()[:2]):
                    yield process

    def _log(self, name: str) -> Path:
        return self.home / f"{name}.log"

    def _read_log(self, name: str) -> str:
        return self._log(name).read_text(encoding="utf-8", errors="replace")


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports that are free on loopback now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _send(process: psutil.Process, sign: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(sign)
