"""What a run amounts to: time per round, communication, memory and convergence.

Everything is computed from the records of its rounds; nothing is estimated.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from fl_opt import __version__
from fl_opt.config import Settings, flat_settings

Status = Literal["running", "completed", "failed", "interrupted"]

LAST_ROUNDS = 10
"""How many rounds the last mean accuracy covers."""


@dataclass(frozen=True)
class RunInfo:
    """What was run, and with what.

    Attributes
    ----------
    settings : Settings
    engine : str
        Such as ``virtual`` or ``ray``.
    folder : Path
        Where the record lies; its last part is the run's name.
    started : str
        ISO 8601, UTC.
    versions : dict of str to str
        Of Python, fl-opt, flwr, numpy and, where it is loaded, torch.
    """

    settings: Settings
    engine: str
    folder: Path
    started: str
    versions: dict[str, str]

    @classmethod
    def collect(cls, settings: Settings, engine: str, folder: Path) -> RunInfo:
        """Describe a run that starts now in this process."""
        versions = {"python": platform.python_version(), "fl-opt": __version__}
        versions |= {name: metadata.version(name) for name in ("flwr", "numpy")}
        if torch := sys.modules.get("torch"):
            versions["torch"] = str(torch.__version__)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(settings, engine, folder, started, versions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under kebab-case keys, without the place of the folder."""
        return {
            "name": self.folder.name,
            "engine": self.engine,
            "started": self.started,
            "seed": self.settings.seed,
            "versions": self.versions,
            "settings": dict(flat_settings(self.settings)),
        }


@dataclass(frozen=True)
class RoundTime:
    """Seconds a round takes.

    Virtual seconds are None where there is no virtual clock; ``parts`` are means over the
    rounds of what :class:`~fl_opt.profiling.rounds.RoundRecord` calls so. Totals include the
    evaluation of the initial model, means and medians do not.
    """

    wall_mean: float | None
    wall_median: float | None
    wall_total: float
    virtual_mean: float | None
    virtual_median: float | None
    virtual_total: float | None
    parts: dict[str, float]


@dataclass(frozen=True)
class Volume:
    """Bytes in one direction: payloads, whole messages, and the same as plain float32."""

    payload_bytes: int
    message_bytes: int
    dense_bytes: int

    def __add__(self, other: Volume) -> Volume:
        return Volume(
            self.payload_bytes + other.payload_bytes,
            self.message_bytes + other.message_bytes,
            self.dense_bytes + other.dense_bytes,
        )

    @property
    def compression_ratio(self) -> float | None:
        """Float32 bytes over payload bytes; None if nothing was sent."""
        return self.dense_bytes / self.payload_bytes if self.payload_bytes else None

    @property
    def message_compression_ratio(self) -> float | None:
        """Bare float32 bytes over the bytes of whole messages; None if nothing was sent."""
        return self.dense_bytes / self.message_bytes if self.message_bytes else None

    @property
    def percent_saved(self) -> float | None:
        """Part of the float32 bytes that payloads did without, in percent."""
        if not self.dense_bytes:
            return None
        return 100.0 * (1.0 - self.payload_bytes / self.dense_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Return counts and ratios under kebab-case keys."""
        return {
            **_kebab(asdict(self)),
            "compression-ratio": self.compression_ratio,
            "message-compression-ratio": self.message_compression_ratio,
            "percent-saved": self.percent_saved,
        }


@dataclass(frozen=True)
class Communication:
    """Traffic from clients to the server (up) and back (down)."""

    up: Volume
    down: Volume

    @property
    def total(self) -> Volume:
        """Both directions together."""
        return self.up + self.down


@dataclass(frozen=True)
class Exchange:
    """What became of messages and updates, summed over the run.

    Attributes
    ----------
    down_by_kind : dict of str to int
        Payload bytes to clients, by what they were.
    codecs_up, codecs_down : dict of str to int
        Where codecs are chosen for each client: how many replies each was used for.
    served_again, stale, ignored, returned, lost : int
        See :class:`~fl_opt.profiling.rounds.RoundRecord`.
    """

    down_by_kind: dict[str, int]
    codecs_up: dict[str, int]
    codecs_down: dict[str, int]
    served_again: int
    stale: int
    ignored: int
    returned: int
    lost: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under kebab-case keys; codecs keep their own names."""
        return _kebab(asdict(self))


@dataclass(frozen=True)
class Memory:
    """Peak resident memory in bytes; None where it was not measured."""

    server_peak_bytes: int | None
    client_peak_bytes: int | None


@dataclass(frozen=True)
class Convergence:
    """How well and how soon the model learnt.

    Attributes
    ----------
    evaluated : {"central", "federated"}
        Whose accuracy: on the central test set where there is one, else of the clients.
    final_accuracy, best_accuracy, last_accuracy : float or None
        Of the last evaluated round, of the best one, and the mean of the last ten.
    best_round : int or None
    final_loss : float or None
    target_accuracy : float
    rounds_to_target : int or None
        First round with at least the target accuracy; None if there was none.
    """

    evaluated: Literal["central", "federated"]
    final_accuracy: float | None
    best_accuracy: float | None
    best_round: int | None
    last_accuracy: float | None
    final_loss: float | None
    target_accuracy: float
    rounds_to_target: int | None


@dataclass(frozen=True)
class RunSummary:
    """A run in numbers.

    Attributes
    ----------
    info : RunInfo
    status : {"running", "completed", "failed", "interrupted"}
    error : str or None
        Why a run failed, in one line.
    rounds_planned, rounds_done : int
    participants, failures : int
        Training replies used, and not used, over all rounds.
    time : RoundTime
    communication : Communication
    exchange : Exchange
    memory : Memory
    convergence : Convergence
    """

    info: RunInfo
    status: Status
    error: str | None
    rounds_planned: int
    rounds_done: int
    participants: int
    failures: int
    time: RoundTime
    communication: Communication
    exchange: Exchange
    memory: Memory
    convergence: Convergence

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under kebab-case keys: the content of ``summary.json``."""
        traffic = self.communication
        return {
            **self.info.to_dict(),
            "status": self.status,
            "error": self.error,
            "rounds-planned": self.rounds_planned,
            "rounds-done": self.rounds_done,
            "participants": self.participants,
            "failures": self.failures,
            "time-seconds": _kebab(asdict(self.time)),
            "communication": {
                "up": traffic.up.to_dict(),
                "down": traffic.down.to_dict(),
                "total": traffic.total.to_dict(),
            },
            "exchange": self.exchange.to_dict(),
            "memory": _kebab(asdict(self.memory)),
            "convergence": _kebab(asdict(self.convergence)),
        }


def _kebab(values: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in values.items()}
