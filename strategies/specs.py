"""What the setting ``strategy`` may name, each with its own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from fl_opt.config import Settings
from strategies.base import CompressedStrategy
from strategies.fedavg import CompressedFedAvg
from strategies.fedbuff import CompressedFedAsync, CompressedFedBuff
from strategies.fednova import CompressedFedNova
from strategies.fedprox import CompressedFedProx
from strategies.flower_specs import (
    Bulyan,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    QFedAvg,
)
from strategies.options import Options, in_rounds, refuse, stepping, without_rounds
from strategies.selection.checks import check_at_least


class StrategySpec(Protocol):
    """A strategy's own settings, from which it is built."""

    name: ClassVar[str]

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it.

        Raises
        ------
        ConfigError
            If a setting is wrong for this strategy, or would have no effect.
        """


@dataclass(frozen=True)
class FedAvg:
    """The mean of the updates, weighted by examples; with momentum: FedAvgM, and so on."""

    name: ClassVar[str] = "fedavg"

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""
        return CompressedFedAvg(**in_rounds(settings, options), **stepping(settings))


@dataclass(frozen=True)
class FedProx:
    """Federated averaging of clients that are held near the global model."""

    proximal_mu: float = 0.01

    name: ClassVar[str] = "fedprox"

    def __post_init__(self) -> None:
        check_at_least(0, proximal_mu=self.proximal_mu)

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""
        reason = f"'fedprox' tells clients its own: proximal_mu = {self.proximal_mu}"
        refuse(settings, reason, "train.proximal-mu")
        rounds = in_rounds(settings, options)
        return CompressedFedProx(proximal_mu=self.proximal_mu, **rounds, **stepping(settings))


@dataclass(frozen=True)
class FedNova:
    """Federated averaging that allows for different numbers of local steps."""

    name: ClassVar[str] = "fednova"

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it, for the momentum that the clients are configured with."""
        momentum = settings.train.momentum if settings.train.optimizer == "sgd" else 0.0
        rounds = in_rounds(settings, options)
        return CompressedFedNova(local_momentum=momentum, **rounds, **stepping(settings))


@dataclass(frozen=True)
class FedBuff:
    """Asynchronous: a step for every so many updates, whoever sends them."""

    buffer_size: int = 5
    max_concurrency: int = 10

    name: ClassVar[str] = "fedbuff"

    def __post_init__(self) -> None:
        check_at_least(1, buffer_size=self.buffer_size, max_concurrency=self.max_concurrency)

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""
        return CompressedFedBuff(
            buffer_size=self.buffer_size,
            max_concurrency=self.max_concurrency,
            **without_rounds(self.name, self.buffer_size, settings, options),
            **stepping(settings),
        )


@dataclass(frozen=True)
class FedAsync:
    """Asynchronous: a step for every update."""

    max_concurrency: int = 10

    name: ClassVar[str] = "fedasync"

    def __post_init__(self) -> None:
        check_at_least(1, max_concurrency=self.max_concurrency)

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""
        rules = stepping(settings)
        if settings.server_optimizer == Settings().server_optimizer:
            del rules["server_optimizer"]  # its own default is a smaller step
        return CompressedFedAsync(
            max_concurrency=self.max_concurrency,
            **without_rounds(self.name, 1, settings, options),
            **rules,
        )


STRATEGIES: Final[Mapping[str, type[StrategySpec]]] = {
    kind.name: kind
    for kind in (
        *(FedAvg, FedProx, FedNova, FedBuff, FedAsync),
        *(Krum, MultiKrum, Bulyan, FedMedian, FedTrimmedAvg, QFedAvg),
    )
}
