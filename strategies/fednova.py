"""FedNova: clients that do more work do not pull harder for it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from flwr.app import MetricRecord
from numpy.typing import NDArray

from fl_opt.errors import ConfigError, ExchangeError
from fl_opt.exchange import records
from strategies.collection import Collection
from strategies.fedavg import CompressedFedAvg
from strategies.model import ExactArrays

_STEPS: Final = "num-steps"
_MOST_STEPS: Final = 1e9


class CompressedFedNova(CompressedFedAvg):
    """Normalised averaging of clients that take different numbers of steps.

    With ``tau_i = ||a_i||_1`` of client i's local steps and weights ``p_i`` (examples over all
    examples)::

        w += tau_eff  sum_i p_i delta_i / tau_i,    tau_eff = sum_i p_i tau_i

    (Wang et al. 2020, arXiv 2007.07481). For plain gradient descent ``tau_i`` is the number of
    steps; with momentum ``m`` it is ``(K - m (1 - m^K) / (1 - m)) / (1 - m)`` for K steps.
    Where all clients take the same number of steps this is federated averaging. Clients have to
    report ``num-steps``.

    Parameters
    ----------
    codec : str
        Spec of what clients send.
    local_momentum : float
        Of the clients' optimizer, in [0, 1).
    **options
        Of :class:`~strategies.fedavg.CompressedFedAvg`.
    """

    takes_parts = False  # the effective number of steps is one for all entries

    def __init__(
        self,
        codec: str = "topk(0.02) | ternary",
        *,
        local_momentum: float = 0.0,
        **options: Any,
    ) -> None:
        if not 0.0 <= local_momentum < 1.0:
            raise ConfigError(f"local_momentum = {local_momentum} is not in [0, 1)")
        super().__init__(codec, **options)
        self.local_momentum = local_momentum

    def scale(self, metrics: MetricRecord, staleness: int) -> float:
        """Return the weight of a stale update over the steps it is made of."""
        return super().scale(metrics, staleness) / self._tau(metrics)

    def mean(self, taken: Collection) -> tuple[NDArray[np.float32], ExactArrays]:
        """Return the mean of the normalised updates, times ``tau_eff``."""
        delta, exact = super().mean(taken)
        found = [content.metric_records[records.METRICS] for content in taken.metrics]
        weights = np.array([metrics[self.weighted_by_key] for metrics in found], np.float64)
        taus = np.array([self._tau(metrics) for metrics in found])
        delta *= np.float32(np.average(taus, weights=weights))
        return delta, exact

    def _tau(self, metrics: MetricRecord) -> float:
        steps = metrics.get(_STEPS)
        if not isinstance(steps, int | float) or not 1 <= steps <= _MOST_STEPS:
            raise ExchangeError(
                f"{_STEPS} = {steps!r:.80} is not a number from 1 to {_MOST_STEPS:g}, "
                "which fednova needs of each client"
            )
        momentum = self.local_momentum
        if not momentum:
            return float(steps)
        lost = momentum * (1.0 - momentum**steps) / (1.0 - momentum)
        return float((steps - lost) / (1.0 - momentum))
