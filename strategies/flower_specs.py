"""Flower's own strategies, as the setting ``strategy`` names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from flwr.serverapp import strategy as flower

from fl_opt.config import Settings
from fl_opt.errors import ConfigError
from strategies.base import CompressedStrategy
from strategies.options import Options, in_rounds, refuse
from strategies.selection.checks import check_at_least
from strategies.wrapped import CompressedWrapper


class OfFlower:
    """Builds one of Flower's own strategies, and puts it behind codecs."""

    name: ClassVar[str]
    kind: ClassVar[type[flower.FedAvg]]

    def build(self, settings: Settings, options: Options) -> CompressedStrategy:
        """Build it; it gets all clients that are chosen, and all replies."""
        reason = f"{self.name!r} takes its steps itself"
        refuse(settings, reason, "server-optimizer", "server-schedule", "round.staleness")
        least, clients = self.needed(), settings.round.clients
        if 0 < clients < least:
            raise ConfigError(f"setting 'round.clients' = {clients}: {self} needs {least}")
        rounds = in_rounds(settings, options)
        for key in ("min_replies", "min_available_nodes"):
            rounds[key] = max(rounds[key], least)
        inner = self.kind(
            **self.arguments(settings),
            fraction_train=1.0,
            min_train_nodes=1,
            min_evaluate_nodes=1,
            min_available_nodes=1,
        )
        return CompressedWrapper(inner, **rounds)

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {}

    def needed(self) -> int:
        """Return the number of replies below which it does not do what it is for."""
        return 1


@dataclass(frozen=True)
class Krum(OfFlower):
    """The one model that is nearest to its neighbours (Blanchard et al. 2017).

    arXiv 1703.02757: of n clients up to ``malicious`` may lie, if ``n >= 2 malicious + 3``.
    """

    malicious: int = 1

    name: ClassVar[str] = "krum"
    kind: ClassVar[type[flower.FedAvg]] = flower.Krum

    def __post_init__(self) -> None:
        check_at_least(0, malicious=self.malicious)

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {"num_malicious_nodes": self.malicious}

    def needed(self) -> int:
        """Return the paper's bound."""
        return 2 * self.malicious + 3


@dataclass(frozen=True)
class MultiKrum(OfFlower):
    """The mean of the models that are nearest to their neighbours (Blanchard et al. 2017)."""

    malicious: int = 1
    selected: int = 5

    name: ClassVar[str] = "multi-krum"
    kind: ClassVar[type[flower.FedAvg]] = flower.MultiKrum

    def __post_init__(self) -> None:
        check_at_least(0, malicious=self.malicious)
        check_at_least(1, selected=self.selected)

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {
            "num_malicious_nodes": self.malicious,
            "num_nodes_to_select": self.selected,
        }

    def needed(self) -> int:
        """Return Krum's bound, or as many as are to be selected."""
        return max(2 * self.malicious + 3, self.selected)


@dataclass(frozen=True)
class Bulyan(OfFlower):
    """A trimmed mean around the median of models that Krum selects (El Mhamdi et al. 2018).

    arXiv 1802.07927: of n clients up to ``malicious`` may lie, if ``n >= 4 malicious + 3``.
    """

    malicious: int = 1

    name: ClassVar[str] = "bulyan"
    kind: ClassVar[type[flower.FedAvg]] = flower.Bulyan

    def __post_init__(self) -> None:
        check_at_least(0, malicious=self.malicious)

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {"num_malicious_nodes": self.malicious}

    def needed(self) -> int:
        """Return the paper's bound."""
        return 4 * self.malicious + 3


@dataclass(frozen=True)
class FedMedian(OfFlower):
    """The median of each weight (Yin et al. 2018, arXiv 1803.01498)."""

    name: ClassVar[str] = "fedmedian"
    kind: ClassVar[type[flower.FedAvg]] = flower.FedMedian


@dataclass(frozen=True)
class FedTrimmedAvg(OfFlower):
    """The mean of each weight without its lowest and highest values (Yin et al. 2018)."""

    beta: float = 0.2

    name: ClassVar[str] = "fedtrimmedavg"
    kind: ClassVar[type[flower.FedAvg]] = flower.FedTrimmedAvg

    def __post_init__(self) -> None:
        if not 0.0 <= self.beta < 0.5:
            raise ConfigError(f"beta = {self.beta} is not in [0, 0.5)")

    def arguments(self, _settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {"beta": self.beta}


@dataclass(frozen=True)
class QFedAvg(OfFlower):
    """Larger weights for clients with a larger loss: fairness (Li et al. 2020).

    arXiv 1905.10497.
    """

    q: float = 0.1

    name: ClassVar[str] = "qfedavg"
    kind: ClassVar[type[flower.FedAvg]] = flower.QFedAvg

    def __post_init__(self) -> None:
        check_at_least(0, q=self.q)

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """Return what Flower calls the settings of this one."""
        return {
            "q": self.q,
            "client_learning_rate": settings.train.learning_rate,
            "train_loss_key": "train-loss",
        }
