"""Names of strategies in the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fl_opt.checkpoint import Checkpoints
from fl_opt.config import Settings
from fl_opt.errors import ConfigError
from fl_opt.exchange.downlink import DownlinkOptions
from fl_opt.profiling.rounds import RoundObserver
from strategies.base import CompressedStrategy
from strategies.fedavg import CompressedFedAvg

STRATEGIES: Final[dict[str, type[CompressedFedAvg]]] = {"fedavg": CompressedFedAvg}


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
    if settings.strategy not in STRATEGIES:
        raise ConfigError(
            f"setting 'strategy' = {settings.strategy!r}: known are {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[settings.strategy](
        settings.uplink.codec,
        downlink=DownlinkOptions(**settings.downlink.model_dump()),
        feedback=settings.uplink.feedback,
        server_optimizer=settings.server.optimizer,
        exact_arrays=settings.exact_patterns,
        clients_per_round=settings.round.clients or None,
        clients_per_evaluation=settings.evaluate.clients or None,
        evaluate_every=settings.evaluate.federated_every,
        evaluate_mode=settings.evaluate.mode,
        late_replies=settings.round.late_replies,
        min_replies=settings.round.min_replies,
        node_timeout=settings.round.wait_for_nodes,
        seed=settings.seed,
        checkpoints=checkpoints,
        checkpoint_every=settings.checkpoint.every or 1,
        observers=observers,
        min_available_nodes=settings.round.min_nodes,
        min_train_nodes=1,
        min_evaluate_nodes=1,
    )
