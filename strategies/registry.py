"""From the run config to a strategy."""

from __future__ import annotations

from collections.abc import Sequence

from fl_opt.checkpoint import Checkpoints
from fl_opt.codecs.grammar import build_named
from fl_opt.config import Settings
from fl_opt.exchange.downlink import DownlinkOptions
from fl_opt.profiling.rounds import RoundObserver
from strategies.base import CompressedStrategy
from strategies.reductions import check_length
from strategies.specs import STRATEGIES


def build_strategy(
    settings: Settings,
    observers: Sequence[RoundObserver] = (),
    checkpoints: Checkpoints | None = None,
) -> CompressedStrategy:
    """Build the strategy that the settings name.

    Raises
    ------
    ConfigError
        If there is none of that name, or one of its settings is wrong.
    """
    spec = build_named(settings.strategy, "strategy", STRATEGIES)
    check_length(settings.pruning, settings.num_server_rounds)
    return spec.build(
        settings,
        {
            "codec": settings.uplink.codec,
            "downlink": DownlinkOptions(**settings.downlink.model_dump()),
            "feedback": settings.uplink.feedback,
            "exact_arrays": settings.exact_patterns,
            "selection": settings.selection,
            "server_average": settings.server_average,
            "balance": settings.balance,
            "pruning": settings.pruning,
            "submodels": settings.submodels,
            "staleness": settings.round.staleness,
            "ttl": settings.round.ttl or None,
            "clients_per_evaluation": settings.evaluate.clients or None,
            "evaluate_every": settings.evaluate.federated_every,
            "evaluate_mode": settings.evaluate.mode,
            "max_update_norm": settings.round.max_update_norm,
            "min_replies": settings.round.min_replies,
            "node_timeout": settings.round.wait_for_nodes,
            "seed": settings.seed,
            "checkpoints": checkpoints,
            "checkpoint_every": settings.checkpoint.every or 1,
            "observers": observers,
            "spans": settings.profiling.spans,
            "min_available_nodes": settings.round.min_nodes,
            "min_train_nodes": 1,
            "min_evaluate_nodes": 1,
        },
    )
