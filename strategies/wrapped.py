"""Any of Flower's strategies, or a user's own, behind codecs.

::

    strategy = compressed(Krum(num_malicious_nodes=2), "topk(0.05) | ternary")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    Strategy,
)
from numpy.typing import NDArray

from fl_opt.errors import ConfigError
from fl_opt.exchange import records
from fl_opt.simulation.proxy import GridProxy
from strategies.base import CompressedStrategy
from strategies.collection import Collection
from strategies.model import ExactArrays


class CompressedWrapper(CompressedStrategy):
    """Lets a strategy work on plain arrays, while coded updates travel.

    In each round the inner strategy writes messages to the clients that this one has chosen, or
    to some of them; the model in these messages is replaced by a coded difference, and their
    config goes with it. Of the replies that come back it sees those that are exactly right,
    decoded: the global model plus the client's update, under its own keys, and the metrics
    that all of them have. What it returns is
    the next model. Unlike federated averaging, which adds updates up as they come, that takes
    the memory of a whole model for each reply.

    Parameters
    ----------
    inner : Strategy
        Its ``start`` is not called. Its functions for aggregating metrics are used where it
        has them.
    codec : str
        Spec of what clients send.
    **options
        Of :class:`~strategies.base.CompressedStrategy`. By default all clients that are
        connected are offered to the inner strategy in each round.

    Raises
    ------
    ConfigError
        If clients clip for differential privacy and ``feedback`` is not ``"none"``: a residual
        adds to what was clipped, and what is sent has no bound that the noise could hide.
    """

    keeps_updates = True
    takes_parts = False  # it sees whole models
    _CLIENTS_CLIP = (
        DifferentialPrivacyClientSideFixedClipping,
        DifferentialPrivacyClientSideAdaptiveClipping,
    )

    def __init__(
        self, inner: Strategy, codec: str = "topk(0.02) | ternary", **options: Any
    ) -> None:
        names = (
            "weighted_by_key",
            "evaluate_metrics_aggr_fn",
            "fraction_evaluate",
            "min_evaluate_nodes",
            "min_available_nodes",
            "min_train_nodes",
        )
        of_inner = {name: getattr(inner, name) for name in names if hasattr(inner, name)}
        super().__init__(codec, **{**of_inner, **options})
        self.inner = inner
        if isinstance(inner, self._CLIENTS_CLIP) and self.feedback != "none":
            raise ConfigError(
                f"feedback = {self.feedback!r} adds to updates that clients have clipped for "
                f"{type(inner).__name__}: give feedback='none'"
            )

    def write_messages(
        self,
        server_round: int,
        config: ConfigRecord,
        grid: Grid,
        nodes: Sequence[int],
        *,
        evaluate: bool,
    ) -> list[Message]:
        """Have the inner strategy write messages, and send coded ones in their place."""
        arrays = self._model.arrays
        assert arrays is not None  # it has been adopted  # noqa: S101
        offered = _ChosenNodes(grid, nodes)
        written = self.inner.configure_train(server_round, arrays, config, offered)
        configs = {message.metadata.dst_node_id: _config_of(message) for message in written}
        if not configs:
            return []
        first = next(iter(configs.values()))
        common = {
            key: value
            for key, value in first.items()
            if all(one.get(key) == value for one in configs.values())
        }

        def own(node_id: int) -> Mapping[str, Any]:
            mine = configs.get(node_id, common)
            return {key: value for key, value in mine.items() if key not in common}

        return self._training.open(
            server_round, ConfigRecord(common), list(configs), evaluate=evaluate, own=own
        )

    def _within_the_clip(self, update: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut to the norm that clients clip to: a lossy codec may have made more of it."""
        if isinstance(self.inner, self._CLIENTS_CLIP):
            norm = float(np.linalg.norm(update))
            if norm > self.inner.clipping_norm:
                update *= np.float32(self.inner.clipping_norm / norm)
        return update

    def aggregate(
        self, server_round: int, taken: Collection
    ) -> tuple[NDArray[np.float32], ExactArrays, MetricRecord] | None:
        """Return what the inner strategy makes of the updates; None if it refuses them."""
        arrays_key = getattr(self.inner, "arrayrecord_key", records.ARRAYS)
        replies: list[Message] = []
        shared = set.intersection(*(set(kept.metrics) for kept in taken.kept))
        for kept in taken.kept:
            weights = self._within_the_clip(kept.received.update.to_dense())
            weights += self._model.vector
            named = self._model.spec.unflatten(weights, kept.received.exact)
            metrics = MetricRecord({k: v for k, v in kept.metrics.items() if k in shared})
            kept.reply.content = RecordDict(
                {arrays_key: records.pack_arrays(named), records.METRICS: metrics}
            )
            replies.append(kept.reply)
        arrays, aggregated = self.inner.aggregate_train(server_round, replies)
        if arrays is None:
            return None
        named = records.unpack_arrays(arrays)
        spec = self._model.spec
        exact = {a.name: _as_dtype(named[a.name], a.dtype) for a in spec.exact_arrays}
        return spec.flatten(named), exact, aggregated or MetricRecord()


def compressed(
    inner: Strategy, codec: str = "topk(0.02) | ternary", **options: Any
) -> CompressedWrapper:
    """Return a strategy that works as ``inner`` does, with coded messages both ways.

    Parameters and options are those of :class:`CompressedWrapper`.

    Examples
    --------
    ::

        strategy = compressed(FedMedian(fraction_train=0.1), "ecsq(0.3)", feedback="none")
        strategy.start(grid, initial_arrays, num_rounds=10)
    """
    return CompressedWrapper(inner, codec, **options)


class _ChosenNodes(GridProxy):
    """A Grid on which only some nodes are connected."""

    def __init__(self, grid: Grid, nodes: Sequence[int]) -> None:
        super().__init__(grid)
        self._nodes = list(nodes)

    def get_node_ids(self) -> Iterable[int]:
        return self._nodes


def _as_dtype(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return an array in a dtype; Flower's means of integers are fractions."""
    if np.dtype(dtype).kind in "iu" and array.dtype.kind == "f":
        array = np.asarray(np.rint(array))
    return array.astype(dtype)


def _config_of(message: Message) -> dict[str, Any]:
    """Return all entries of a message's config records."""
    found: dict[str, Any] = {}
    for record in message.content.config_records.values():
        found |= record
    return found
