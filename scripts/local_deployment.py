"""Flower's own engines on one machine, started and stopped without a trace.

:class:`LocalDeployment` runs a SuperLink and SuperNodes on loopback; :class:`LocalSimulation`
runs ``flwr run`` against the SuperLink that Flower manages for simulations. Both keep
Flower's files in a temporary ``FLWR_HOME`` and, when left, end every process that runs with
it, one by one.
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
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from fl_opt.errors import FlOptError

LOOPBACK = "127.0.0.1"
_PROGRAMS = Path(sys.executable).parent  # where pip puts Flower's commands
_START_TIMEOUT = 60.0  # seconds: a cold import of flwr on a busy machine takes several
_STOP_TIMEOUT = 5.0  # seconds between asking a process to end and ending it


class DeploymentError(FlOptError):
    """A Flower process did not start, or a run did not finish."""


@dataclass(frozen=True)
class Traffic:
    """What a SuperLink counted for a run, in bytes.

    ``inbound`` is from SuperNodes to the SuperLink, ``outbound`` the other way.
    """

    inbound: int
    outbound: int


@dataclass(frozen=True)
class FinishedRun:
    """A run as ``flwr list`` shows it after its end."""

    run_id: str
    status: str
    details: str
    traffic: Traffic
    seconds: float

    @property
    def completed(self) -> bool:
        """Whether the ServerApp returned without an error."""
        return self.status == "finished:completed"


class _FlowerHome:
    """A temporary ``FLWR_HOME``, the environment for Flower's commands, and their end."""

    connection = "local"

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fl-opt-flwr-"))
        self._launched: list[subprocess.Popen[bytes]] = []
        self.environment: dict[str, str] = {
            "OMP_NUM_THREADS": "1",  # all clients share this machine
            **os.environ,
            "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ.get('PATH', '')}",
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
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

    def run(
        self,
        app: Path,
        run_config: Mapping[str, bool | int | float | str] | str = "",
        *options: str,
        timeout: float = 600.0,
        echo: bool = False,
    ) -> FinishedRun:
        """Run an app to its end with ``flwr run``.

        Parameters
        ----------
        app : Path
            Folder with the app's ``pyproject.toml``.
        run_config : mapping or str
            Overrides of the app's config, in Flower's own syntax where it is a string.
        *options : str
            Further options of ``flwr run``.
        timeout : float, default 600
            Seconds after which the run is given up.
        echo : bool, default False
            Print the log of the run as it comes.

        Raises
        ------
        DeploymentError
            If the run cannot be started or is not over in time. A ServerApp that fails
            does not raise: see :attr:`FinishedRun.status`.
        """
        overrides = run_config if isinstance(run_config, str) else _as_toml_pairs(run_config)
        command = ["run", str(app), self.connection, "--format", "json", *options]
        if overrides:
            command += ["--run-config", overrides]
        begin = time.monotonic()
        answer = self._flwr(*command, timeout=timeout)
        if not answer.get("success"):
            raise DeploymentError(f"flwr run: {_error_line(answer)}")
        run_id = str(answer["run-id"])
        viewer = self._follow(run_id) if echo else None
        try:
            row = self._wait_for(run_id, begin + timeout)
        finally:
            if viewer is not None:
                _wait_then_kill(viewer)
        traffic = row["network-traffic"]
        return FinishedRun(
            run_id=run_id,
            status=row["status"],
            details=row.get("status-details", ""),
            traffic=Traffic(traffic["inbound-bytes"], traffic["outbound-bytes"]),
            seconds=time.monotonic() - begin,
        )

    def _wait_for(self, run_id: str, deadline: float) -> dict[str, Any]:
        while time.monotonic() < deadline:
            answer = self._flwr("list", self.connection, "--run-id", run_id, "--format", "json")
            rows = answer.get("runs") or []
            if rows and rows[0]["status"].startswith("finished"):
                return dict(rows[0])
            time.sleep(1.0)
        raise DeploymentError(f"run {run_id} is not over in time; logs: {self.home}")

    def _follow(self, run_id: str) -> subprocess.Popen[bytes]:
        command = [self._program("flwr"), "log", run_id, self.connection, "--stream"]
        return subprocess.Popen(command, env=self.environment)

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
        """Start a long-lived process in a session of its own; its output goes to a log."""
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle, in order
            )
        self._launched.append(process)
        return process

    def close(self) -> None:
        """End every process of this home and delete the temporary folder."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes():
                _send(process, sign)
            self._wait_for_the_end()
        for launched in self._launched:
            launched.wait()
        self._launched.clear()
        shutil.rmtree(self.home, ignore_errors=True)

    def _wait_for_the_end(self) -> None:
        deadline = time.monotonic() + _STOP_TIMEOUT
        while any(self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)

    def processes(self) -> Iterator[psutil.Process]:
        """Yield the processes of this home: those started here, and all started by them.

        Flower detaches some of them. What they have in common is ``FLWR_HOME`` in their
        environment, a folder that nobody else was ever told.
        """
        for process in psutil.process_iter():
            try:
                if process.environ().get("FLWR_HOME") == str(self.home):
                    yield process
            except psutil.Error:  # it has ended, or is another user's
                continue


class LocalDeployment(_FlowerHome):
    """A SuperLink and SuperNodes on loopback, on free ports.

    Parameters
    ----------
    num_supernodes : int, default 2
        SuperNode ``i`` gets the node config ``partition-id=i num-partitions=N``.

    Examples
    --------
    >>> with LocalDeployment(2) as deployment:              # doctest: +SKIP
    ...     run = deployment.run(Path("."), "num-server-rounds=3", echo=True)
    """

    connection = "loopback"

    def __init__(self, num_supernodes: int = 2) -> None:
        super().__init__()
        self.num_supernodes = num_supernodes

    def _start(self) -> None:
        link, control, *nodes = free_ports(2 + self.num_supernodes)
        self._write_connection(link)
        superlink = self._launch(
            "superlink",
            *(
                self._program("flower-superlink"),
                "--insecure",
                "--host",
                LOOPBACK,
                "--port",
                str(link),
            ),
            *("--control-api-address", f"{LOOPBACK}:{control}"),
        )
        self._wait_until_healthy(superlink, link)
        for index, port in enumerate(nodes):
            self._launch(
                f"supernode-{index}",
                *(
                    self._program("flower-supernode"),
                    "--insecure",
                    "--superlink",
                    f"{LOOPBACK}:{link}",
                ),
                *("--host", LOOPBACK, "--port", str(port), "--node-config"),
                f"partition-id={index} num-partitions={self.num_supernodes}",
            )

    def _write_connection(self, port: int) -> None:
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{self.connection}"\n\n'
            f'[superlink.{self.connection}]\naddress = "{LOOPBACK}:{port}"\ninsecure = true\n'
        )

    def _wait_until_healthy(self, superlink: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if superlink.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/health", timeout=1.0):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        lines = (self.home / "superlink.log").read_text(errors="replace").strip().splitlines()
        raise DeploymentError(
            f"the SuperLink did not start: {lines[-1] if lines else 'no log'}"
        )


class LocalSimulation(_FlowerHome):
    """``flwr run`` in simulation: Flower starts a SuperLink of its own, which is ended here."""

    connection = "local"  # the name in the config that flwr writes into a new FLWR_HOME

    def __init__(self) -> None:
        super().__init__()
        port, control = free_ports(2)
        self.environment["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] = str(port)
        self.environment["FLWR_LOCAL_CONTROL_API_PORT"] = str(control)

    def _start(self) -> None:
        """Nothing: the first ``flwr run`` starts the SuperLink."""


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


def _as_toml_pairs(config: Mapping[str, bool | int | float | str]) -> str:
    # json writes booleans, numbers and strings as TOML does
    return " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())


def _error_line(answer: Mapping[str, Any]) -> str:
    text = str(answer.get("error-message") or answer.get("error") or answer)
    return text.strip().splitlines()[-1]


def _send(process: psutil.Process, sign: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(sign)


def _wait_then_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
