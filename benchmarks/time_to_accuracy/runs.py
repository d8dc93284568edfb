"""Carries runs out, several at a time, and keeps what came of each in a folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fl_opt.config import ConfigValue

VERSION = 1
"""Of what is kept; counted up when it changes."""


@dataclass(frozen=True)
class Answer:
    """One client in one round: bytes of payloads, and virtual seconds from ask to answer."""

    bytes_down: int
    bytes_up: int
    seconds: float


@dataclass(frozen=True)
class Step:
    """One round of a run.

    Attributes
    ----------
    accuracy : float or None
        On the central test set, if it was evaluated.
    bytes_down, bytes_up : int
        Payloads.
    message_bytes_down, message_bytes_up : int
        With everything Flower adds.
    virtual_seconds : float
    answers : list of Answer
    """

    accuracy: float | None
    bytes_down: int
    bytes_up: int
    message_bytes_down: int
    message_bytes_up: int
    virtual_seconds: float
    answers: list[Answer]


@dataclass(frozen=True)
class Trace:
    """What came of a run.

    Attributes
    ----------
    config : dict
        Settings that differ from the defaults of the project.
    steps : list of Step
        Round 0, the evaluation of the initial model, is the first.
    wall_seconds : float
    commit, machine : str
        Where it was carried out.
    """

    config: dict[str, ConfigValue]
    steps: list[Step]
    wall_seconds: float
    commit: str
    machine: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trace:
        """Read what :func:`dataclasses.asdict` wrote."""
        steps = [
            Step(**{**step, "answers": [Answer(**answer) for answer in step["answers"]]})
            for step in values["steps"]
        ]
        return cls(
            values["config"],
            steps,
            values["wall_seconds"],
            values["commit"],
            values.get("machine", ""),
        )


class Runs:
    """Traces by the settings they were run with.

    Parameters
    ----------
    folder : Path
        Where they are kept; a run that is there is not carried out again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, config: Mapping[str, ConfigValue]) -> Trace | None:
        """Return what came of a run; None if it was not carried out."""
        path = self._path(config)
        if not path.exists():
            return None
        return Trace.from_dict(json.loads(path.read_text()))

    def carry_out(
        self, configs: Iterable[Mapping[str, ConfigValue]], jobs: int
    ) -> Iterator[dict[str, ConfigValue]]:
        """Carry out those that are not there yet; yields each as it ends."""
        missing = {self._path(c): dict(c) for c in configs if self.get(c) is None}
        if not missing:
            return
        # A fresh process for each run: nothing passes from one to the next.
        with ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), max_tasks_per_child=1
        ) as pool:
            waiting = {pool.submit(trace, config): path for path, config in missing.items()}
            for future in as_completed(waiting):
                path = waiting[future]
                scratch = path.with_suffix(f".{os.getpid()}")
                scratch.write_text(json.dumps(asdict(future.result())))
                scratch.replace(path)
                yield missing[path]

    def _path(self, config: Mapping[str, ConfigValue]) -> Path:
        text = json.dumps([VERSION, sorted(config.items())])
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def trace(config: dict[str, ConfigValue]) -> Trace:
    """Carry a run out in this process."""
    from flwr.supercore.logger import update_console_handler

    from fl_opt.reporting import load_run
    from run_simulation import run

    update_console_handler(level="ERROR")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run(config, output=Path(folder) / "run", quiet=True)
        records = load_run(Path(folder) / "run").records
    steps = [
        Step(
            accuracy=record.accuracy,
            bytes_down=record.bytes_down,
            bytes_up=record.bytes_up,
            message_bytes_down=record.message_bytes_down,
            message_bytes_up=record.message_bytes_up,
            virtual_seconds=record.virtual_seconds or 0.0,
            answers=[
                Answer(client.bytes_down, client.bytes_up, client.seconds)
                for client in record.clients
                if client.staleness
            ],
        )
        for record in records
    ]
    return Trace(config, steps, time.perf_counter() - started, commit(), machine())


def machine() -> str:
    """Describe this machine."""
    import torch

    gpu = f" and {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} cores of {platform.machine()}{gpu}"


def commit() -> str:
    """Return the commit of the checkout, with a mark where it was changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
