"""What a run amounts to: time per round, communication, memory and convergence.

Everything is computed from the records of its rounds; nothing is estimated.
"""

from __future__ import annotations

import math
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from fl_opt import __version__
from fl_opt.config import Settings, flat_settings
from fl_opt.profiling.rounds import RoundRecord

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
    served_again, stale, ignored, returned, lost : int
        See :class:`~fl_opt.profiling.rounds.RoundRecord`.
    """

    down_by_kind: dict[str, int]
    served_again: int
    stale: int
    ignored: int
    returned: int
    lost: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under kebab-case keys."""
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


def summarize(
    info: RunInfo,
    records: Sequence[RoundRecord],
    *,
    rounds_planned: int | None = None,
    status: Status = "completed",
    error: str | None = None,
) -> RunSummary:
    """Compute the summary of a run from the records of its rounds.

    Parameters
    ----------
    info : RunInfo
    records : sequence of RoundRecord
        In order; round 0, the evaluation of the initial model, may be among them.
    rounds_planned : int, optional
        Default: as the settings say.
    status, error
        How the run ended.

    Returns
    -------
    RunSummary
    """
    rounds = [record for record in records if record.server_round > 0]
    return RunSummary(
        info=info,
        status=status,
        error=error,
        rounds_planned=(
            info.settings.num_server_rounds if rounds_planned is None else rounds_planned
        ),
        rounds_done=len(rounds),
        participants=sum(record.participants for record in records),
        failures=sum(record.failures for record in records),
        time=_time(records, rounds),
        communication=_communication(records),
        exchange=_exchange(records),
        memory=Memory(
            max((r.server_peak_memory_bytes for r in records), default=0) or None,
            max((r.client_peak_memory_bytes for r in records), default=0) or None,
        ),
        convergence=_convergence(rounds, info.settings.evaluate.target_accuracy),
    )


def _time(records: Sequence[RoundRecord], rounds: Sequence[RoundRecord]) -> RoundTime:
    wall = [record.wall_seconds for record in rounds]
    virtual = _present(record.virtual_seconds for record in rounds)
    all_virtual = _present(record.virtual_seconds for record in records)
    names = dict.fromkeys(name for record in rounds for name in record.parts)
    return RoundTime(
        wall_mean=fmean(wall) if wall else None,
        wall_median=median(wall) if wall else None,
        wall_total=math.fsum(record.wall_seconds for record in records),
        virtual_mean=fmean(virtual) if virtual else None,
        virtual_median=median(virtual) if virtual else None,
        virtual_total=math.fsum(all_virtual) if all_virtual else None,
        parts={name: fmean(r.parts.get(name, 0.0) for r in rounds) for name in names},
    )


def _communication(records: Sequence[RoundRecord]) -> Communication:
    up = (Volume(r.bytes_up, r.message_bytes_up, r.dense_bytes_up) for r in records)
    down = (Volume(r.bytes_down, r.message_bytes_down, r.dense_bytes_down) for r in records)
    return Communication(sum(up, Volume(0, 0, 0)), sum(down, Volume(0, 0, 0)))


def _exchange(records: Sequence[RoundRecord]) -> Exchange:
    kinds: Counter[str] = Counter()
    for record in records:
        kinds.update(record.bytes_down_by_kind)
    return Exchange(
        down_by_kind=dict(kinds),
        served_again=sum(record.served_again for record in records),
        stale=sum(record.stale for record in records),
        ignored=sum(record.ignored for record in records),
        returned=sum(record.returned for record in records),
        lost=sum(record.lost for record in records),
    )


def _convergence(rounds: Sequence[RoundRecord], target: float) -> Convergence:
    central = any(record.accuracy is not None for record in rounds)
    scores = [(r.server_round, r.accuracy if central else r.federated_accuracy) for r in rounds]
    accuracy = {n: value for n, value in scores if value is not None and math.isfinite(value)}
    losses = _present(r.loss if central else r.federated_loss for r in rounds)
    values = list(accuracy.values())
    best_round = max(accuracy, key=lambda server_round: accuracy[server_round], default=None)
    return Convergence(
        evaluated="central" if central else "federated",
        final_accuracy=values[-1] if values else None,
        best_accuracy=max(values, default=None),
        best_round=best_round,
        last_accuracy=fmean(values[-LAST_ROUNDS:]) if values else None,
        final_loss=losses[-1] if losses else None,
        target_accuracy=target,
        rounds_to_target=next((n for n, value in accuracy.items() if value >= target), None),
    )


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _kebab(values: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in values.items()}
