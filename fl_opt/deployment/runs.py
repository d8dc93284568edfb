"""Runs on one of Flower's engines: started, waited for, and what became of them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_opt.deployment.home import SERVERAPP, DeploymentError, FlowerHome

_SIMULATION = "flwr-simulation"  # does a ServerApp's work where clients are simulated


@dataclass(frozen=True)
class Traffic:
    """What a SuperLink counted for a run, in bytes.

    ``inbound`` is from SuperNodes to the SuperLink, ``outbound`` the other way.
    """

    inbound: int
    outbound: int


@dataclass(frozen=True)
class StartedRun:
    """A run that ``flwr run`` has handed to the SuperLink; ``began`` is a monotonic time."""

    run_id: str
    began: float


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


class FlowerEngine(FlowerHome):
    """A home with a SuperLink, managed by a subclass or by Flower, to run apps on.

    Attributes
    ----------
    connection : str
        The SuperLink's name in the home's ``config.toml``.
    """

    connection = "local"

    def run(
        self,
        app: Path,
        run_config: Mapping[str, bool | int | float | str] | str = "",
        *options: str,
        timeout: float = 600.0,
        echo: bool = False,
    ) -> FinishedRun:
        """Run an app to its end: :meth:`start_run`, then :meth:`wait`."""
        started = self.start_run(app, run_config, *options, timeout=timeout)
        return self.wait(started, timeout=timeout, echo=echo)

    def start_run(
        self,
        app: Path,
        run_config: Mapping[str, bool | int | float | str] | str = "",
        *options: str,
        timeout: float = 60.0,
    ) -> StartedRun:
        """Start a run with ``flwr run`` and return at once.

        Parameters
        ----------
        app : Path
            Folder with the app's ``pyproject.toml``.
        run_config : mapping or str
            Overrides of the app's config, in Flower's own syntax where it is a string.
        *options : str
            Further options of ``flwr run``.
        timeout : float, default 60
            Seconds for ``flwr run`` itself, which may have to start a SuperLink.

        Raises
        ------
        DeploymentError
            If the SuperLink refuses the run or does not answer.
        """
        overrides = run_config if isinstance(run_config, str) else _as_toml_pairs(run_config)
        command = ["run", str(app), self.connection, "--format", "json", *options]
        if overrides:
            command += ["--run-config", overrides]
        began = time.monotonic()
        answer = self._flwr(*command, timeout=timeout)
        if not answer.get("success"):
            raise DeploymentError(f"flwr run: {_error_line(answer)}")
        return StartedRun(str(answer["run-id"]), began)

    def wait(
        self, run: StartedRun, *, timeout: float = 600.0, echo: bool = False
    ) -> FinishedRun:
        """Wait for the end of a run.

        Parameters
        ----------
        run : StartedRun
        timeout : float, default 600
            Seconds since its start after which the run is given up.
        echo : bool, default False
            Print the log of the run as it comes.

        Raises
        ------
        DeploymentError
            If the SuperLink does not know the run, or it is not over in time. A ServerApp
            that fails does not raise: see :attr:`FinishedRun.status`.
        """
        viewer = self._follow(run.run_id) if echo else None
        try:
            row = self._wait_for(run.run_id, run.began + timeout)
        finally:
            if viewer is not None:
                _wait_then_kill(viewer)
        traffic = row["network-traffic"]
        return FinishedRun(
            run_id=run.run_id,
            status=row["status"],
            details=row.get("status-details", ""),
            traffic=Traffic(traffic["inbound-bytes"], traffic["outbound-bytes"]),
            seconds=time.monotonic() - run.began,
        )

    def status(self, run: StartedRun) -> str:
        """Return the status that the SuperLink has for a run, such as ``running``."""
        return str(self._row(run.run_id)["status"])

    def _wait_for(self, run_id: str, deadline: float) -> dict[str, Any]:
        while time.monotonic() < deadline:
            # Asking takes a second of the processor that a run under way needs.
            if not any(self.apps(SERVERAPP)) and not any(self.apps(_SIMULATION)):
                row = self._row(run_id)
                if row["status"].startswith("finished"):
                    return row
            time.sleep(0.5)
        raise DeploymentError(f"run {run_id} is not over in time")

    def _row(self, run_id: str) -> dict[str, Any]:
        answer = self._flwr("list", self.connection, "--run-id", run_id, "--format", "json")
        if not answer.get("runs"):
            raise DeploymentError(f"flwr list: run {run_id}: {_error_line(answer)}")
        return dict(answer["runs"][0])

    def _follow(self, run_id: str) -> subprocess.Popen[bytes]:
        command = [self._program("flwr"), "log", run_id, self.connection, "--stream"]
        return subprocess.Popen(command, env=self.environment)


def _as_toml_pairs(config: Mapping[str, bool | int | float | str]) -> str:
    # json writes booleans, numbers and strings as TOML does
    return " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())


def _error_line(answer: Mapping[str, Any]) -> str:
    text = str(answer.get("error-message") or answer.get("error") or answer)
    return text.strip().splitlines()[-1]


def _wait_then_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
