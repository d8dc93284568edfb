"""From the records of rounds to the summary of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting.summary import (
    LAST_ROUNDS,
    Communication,
    Convergence,
    Exchange,
    Memory,
    RoundTime,
    RunInfo,
    RunSummary,
    Status,
    Volume,
)


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
    used = [client for r in records for client in r.clients if client.error is None]
    return Exchange(
        down_by_kind=dict(kinds),
        codecs_up=dict(Counter(c.codec_up for c in used if c.codec_up).most_common()),
        codecs_down=dict(Counter(c.codec_down for c in used if c.codec_down).most_common()),
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
