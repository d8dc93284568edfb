"""What is checked of every reply before it may count."""

from __future__ import annotations

import math
from typing import Final

from flwr.app import Message, MetricRecord

from fl_opt.errors import ExchangeError
from fl_opt.exchange import records

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
        If the client failed, there is not exactly one MetricRecord of its own, the weight is
        not a whole number in range, or a metric is not finite.
    """
    check_no_error(reply)
    found = [
        record
        for name, record in reply.content.metric_records.items()
        if name != records.EVALUATION
    ]
    if len(found) != 1:
        raise ExchangeError(f"reply has {len(found)} MetricRecords, exactly one is needed")
    return found[0], _checked(found[0], weighted_by_key, least)


def open_evaluation(reply: Message, weighted_by_key: str) -> MetricRecord | None:
    """Return the metrics of an evaluation that came with an update.

    None if there was none, or not a single example. Errors are those of :func:`open_reply`.
    """
    metrics = reply.content.metric_records.get(records.EVALUATION)
    if metrics is None:
        return None
    weight = _checked(metrics, weighted_by_key, 0)
    return metrics if weight else None


def check_no_error(reply: Message) -> None:
    """Raise an ExchangeError if the reply is an error."""
    if reply.has_error():
        reason = " ".join((reply.error.reason or "no reason given").split())
        raise ExchangeError(f"client failed: {reason}")


def _checked(metrics: MetricRecord, weighted_by_key: str, least: int) -> int:
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
    return weight
