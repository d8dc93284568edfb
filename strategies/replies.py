"""What is checked of every reply before it may count."""

from __future__ import annotations

import math
from typing import Final

from flwr.app import Message, MetricRecord

from fl_opt.errors import ExchangeError

MAX_WEIGHT: Final = 10**9
"""Largest number of examples that one client may claim."""


def open_reply(
    reply: Message, weighted_by_key: str, *, least: int = 1
) -> tuple[MetricRecord, int]:
    """Return the metrics of a reply and its weight.

    Parameters
    ----------
    reply : Message
    weighted_by_key : str
        Name of the metric that is the weight.
    least : int
        Smallest weight allowed.

    Raises
    ------
    ExchangeError
        If the client failed, there is not exactly one MetricRecord, the weight is not a whole
        number in range, or a metric is not finite.
    """
    if reply.has_error():
        raise ExchangeError(
            f"client failed: {' '.join((reply.error.reason or 'no reason given').split())}"
        )
    found = list(reply.content.metric_records.values())
    if len(found) != 1:
        raise ExchangeError(f"reply has {len(found)} MetricRecords, exactly one is needed")
    metrics = found[0]
    weight = metrics.get(weighted_by_key)
    if not isinstance(weight, int) or not least <= weight <= MAX_WEIGHT:
        raise ExchangeError(
            f"{weighted_by_key} = {weight!r:.80} is not a whole number "
            f"from {least} to {MAX_WEIGHT}"
        )
    for key, value in metrics.items():
        values = value if isinstance(value, list) else [value]
        if not all(math.isfinite(number) for number in values):
            raise ExchangeError(f"metric {key!r} = {value!r:.80} is not finite")
    return metrics, weight
