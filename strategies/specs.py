"""What the setting ``strategy`` may name, each with its own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from flwr.serverapp import strategy as flower

from fl_opt.config import Settings
from fl_opt.errors import ConfigError
from strategies.base import CompressedStrategy
from strategies.fedavg import CompressedFedAvg
from strategies.fedbuff import CompressedFedAsync, CompressedFedBuff
from strategies.fednova import CompressedFedNova
from strategies.fedprox import CompressedFedProx
from strategies.pace import Rounds
from strategies.wrapped import CompressedWrapper

Options = dict[str, Any]
"""Arguments of :class:`~strategies.base.CompressedStrategy` that all strategies share."""


class StrategySpec(Protocol):
    """A strategy's own settings, from which it is built."""

    name: ClassVar[str]

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""


@dataclass(frozen=True)
class FedAvg:
    """The mean of the updates, weighted by examples; with momentum: FedAvgM, and so on."""

    name: ClassVar[str] = "fedavg"

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""
        return CompressedFedAvg(**_in_rounds(settings, options), **_stepping(settings))


@dataclass(frozen=True)
class FedProx:
    """Federated averaging of clients that are held near the global model."""

    proximal_mu: float = 0.01

    name: ClassVar[str] = "fedprox"

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""
        rounds = _in_rounds(settings, options)
        return CompressedFedProx(proximal_mu=self.proximal_mu, **rounds, **_stepping(settings))


@dataclass(frozen=True)
class FedNova:
    """Federated averaging that allows for different numbers of local steps."""

    name: ClassVar[str] = "fednova"

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it, for the momentum that the clients are configured with."""
        momentum = settings.train.momentum if settings.train.optimizer == "sgd" else 0.0
        rounds = _in_rounds(settings, options)
        return CompressedFedNova(local_momentum=momentum, **rounds, **_stepping(settings))


@dataclass(frozen=True)
class FedBuff:
    """Asynchronous: a step for every so many updates, whoever sends them."""

    buffer_size: int = 5
    max_concurrency: int = 10

    name: ClassVar[str] = "fedbuff"

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""
        return CompressedFedBuff(
            buffer_size=self.buffer_size,
            max_concurrency=self.max_concurrency,
            **_without_rounds(self.name, settings, options),
            **_stepping(settings),
        )


@dataclass(frozen=True)
class FedAsync:
    """Asynchronous: a step for every update."""

    max_concurrency: int = 10

    name: ClassVar[str] = "fedasync"

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it."""
        return CompressedFedAsync(
            max_concurrency=self.max_concurrency,
            **_without_rounds(self.name, settings, options),
            **_stepping(settings),
        )


class _OfFlower:
    """Builds one of Flower's own strategies, and puts it behind codecs."""

    name: ClassVar[str]
    kind: ClassVar[type[flower.FedAvg]]

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it; it gets all clients that are chosen, and all replies."""
        for name in ("server_optimizer", "server_schedule"):
            if getattr(settings, name) != getattr(Settings(), name):
                key = name.replace("_", "-")
                raise ConfigError(
                    f"setting {key!r} = {getattr(settings, name)!r}: {self.name!r} takes "
                    "its steps itself"
                )
        inner = self.kind(
            **self.arguments(settings),
            fraction_train=1.0,
            min_train_nodes=1,
            min_evaluate_nodes=1,
            min_available_nodes=1,
        )
        return CompressedWrapper(inner, **_in_rounds(settings, options))

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {}


@dataclass(frozen=True)
class Krum(_OfFlower):
    """The one model that is nearest to its neighbours (Blanchard et al. 2017)."""

    malicious: int = 1

    name: ClassVar[str] = "krum"
    kind: ClassVar[type[flower.FedAvg]] = flower.Krum

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {"num_malicious_nodes": self.malicious}


@dataclass(frozen=True)
class MultiKrum(_OfFlower):
    """The mean of the models that are nearest to their neighbours."""

    malicious: int = 1
    selected: int = 5

    name: ClassVar[str] = "multi-krum"
    kind: ClassVar[type[flower.FedAvg]] = flower.MultiKrum

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {
            "num_malicious_nodes": self.malicious,
            "num_nodes_to_select": self.selected,
        }


@dataclass(frozen=True)
class Bulyan(_OfFlower):
    """A trimmed mean around the median of models that Krum selects (El Mhamdi et al. 2018)."""

    malicious: int = 1

    name: ClassVar[str] = "bulyan"
    kind: ClassVar[type[flower.FedAvg]] = flower.Bulyan

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {"num_malicious_nodes": self.malicious}


@dataclass(frozen=True)
class FedMedian(_OfFlower):
    """The median of each weight (Yin et al. 2018)."""

    name: ClassVar[str] = "fedmedian"
    kind: ClassVar[type[flower.FedAvg]] = flower.FedMedian


@dataclass(frozen=True)
class FedTrimmedAvg(_OfFlower):
    """The mean of each weight without the lowest and highest values (Yin et al. 2018)."""

    beta: float = 0.2

    name: ClassVar[str] = "fedtrimmedavg"
    kind: ClassVar[type[flower.FedAvg]] = flower.FedTrimmedAvg

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        if not 0.0 <= self.beta < 0.5:
            raise ConfigError(f"beta = {self.beta} is not in [0, 0.5)")
        return {"beta": self.beta}


@dataclass(frozen=True)
class QFedAvg(_OfFlower):
    """Larger weights for clients with a larger loss: fairness (Li et al. 2020)."""

    q: float = 0.1

    name: ClassVar[str] = "qfedavg"
    kind: ClassVar[type[flower.FedAvg]] = flower.QFedAvg

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {
            "q": self.q,
            "client_learning_rate": settings.train.learning_rate,
            "train_loss_key": "train-loss",
        }


STRATEGIES: Final[Mapping[str, type[StrategySpec]]] = {
    kind.name: kind
    for kind in (
        *(FedAvg, FedProx, FedNova, FedBuff, FedAsync),
        *(Krum, MultiKrum, Bulyan, FedMedian, FedTrimmedAvg, QFedAvg),
    )
}


def _stepping(settings: Settings) -> Options:
    return {
        "server_optimizer": settings.server_optimizer,
        "server_schedule": settings.server_schedule,
    }


def _in_rounds(settings: Settings, options: Options) -> Options:
    """Return the options of a strategy that works in rounds."""
    return {
        **options,
        "clients_per_round": settings.round.clients or None,
        "late_replies": settings.round.late_replies,
        "pace": Rounds(settings.round.over_selection),
    }


def _without_rounds(name: str, settings: Settings, options: Options) -> Options:
    """Return the options of a strategy without rounds; refuse settings that are of rounds."""
    ordinary = Settings().round
    for key in ("clients", "over_selection", "late_replies"):
        value = getattr(settings.round, key)
        if value != getattr(ordinary, key):
            raise ConfigError(
                f"setting 'round.{key.replace('_', '-')}' = {value!r}: {name!r} has no rounds; "
                "see its own settings, buffer_size and max_concurrency"
            )
    return options
