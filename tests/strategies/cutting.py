"""Runs that are cut short and resumed, and what must be the same as without that."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord

from fl_opt.checkpoint import Checkpoints
from fl_opt.profiling.rounds import RoundRecord
from tests.strategies.federation import Recorder, run


class CutError(Exception):
    """The process ends here."""


def evaluate_until(last: int) -> Any:
    """Central evaluation that ends the run in the round after ``last``, before it is saved."""

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        if server_round > last:
            raise CutError
        return MetricRecord({"loss": float(np.square(arrays["weight"].numpy()).sum())})

    return evaluate


def facts(records: list[RoundRecord]) -> list[tuple[Any, ...]]:
    """What must not depend on whether a run was cut."""
    return [
        (
            *(r.server_round, r.virtual_seconds, r.loss, r.train_loss, r.federated_loss),
            *(r.bytes_up, r.bytes_down, r.message_bytes_up, r.message_bytes_down),
            *(r.participants, r.failures, r.stale, r.ignored, r.returned, r.lost),
            *(r.served_again, tuple(r.bytes_down_by_kind.items())),
        )
        for r in records
    ]


def bits(arrays: ArrayRecord) -> dict[str, bytes]:
    return {name: array.numpy().tobytes() for name, array in arrays.items()}


def cut_and_resumed(
    options: dict[str, Any], lasts: Sequence[int], folder: Path
) -> tuple[Any, list[RoundRecord]]:
    """Run up to each of some rounds, resuming; return the result and all records that count."""
    checkpoints, told = Checkpoints(folder / "checkpoint"), list[RoundRecord]()
    result = None
    for number, last in enumerate(lasts):
        with contextlib.suppress(CutError):
            result, _ = run(
                **options,
                evaluate_fn=evaluate_until(last),
                resume=number > 0,
                checkpoints=checkpoints,
                observers=[kept := Recorder()],
            )
        told += [r for r in kept.rounds if r.server_round <= last]
    return result, told
