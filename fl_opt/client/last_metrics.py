"""The metrics of the last update, kept in ``context.state`` in case it is asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flwr.app import MetricRecord, RecordDict

_PREFIX: Final = "fl-opt.metrics."


def keep_metrics(state: RecordDict, metrics: Mapping[str, MetricRecord]) -> None:
    """Keep metric records, by their names in the reply, in place of the last ones."""
    for key in [key for key in state if key.startswith(_PREFIX)]:
        del state[key]
    for name, record in metrics.items():
        state[_PREFIX + name] = record.copy()


def kept_metrics(state: RecordDict) -> dict[str, MetricRecord]:
    """Return the records that were kept last, by their names in the reply."""
    return {
        key.removeprefix(_PREFIX): record.copy()
        for key, record in state.metric_records.items()
        if key.startswith(_PREFIX)
    }
