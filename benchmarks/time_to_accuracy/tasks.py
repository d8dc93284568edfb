"""What is learnt, by how many clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from fl_opt.config import ConfigValue

Config = Mapping[str, ConfigValue]
NOTHING: Final[Config] = MappingProxyType({})

FREQUENT: Final[Config] = {
    "uplink.feedback": "residual",
    "downlink.mode": "auto",
    "server-average": "none",
}
"""What our methods do where all clients take part in each round."""
AVERAGE: Final[Config] = {"server-optimizer": "sgd"}
MOMENTUM: Final[Config] = {"server-optimizer": "sgd(eta=0.5, momentum=0.9)"}
MORE_MOMENTUM: Final[Config] = {"server-optimizer": "sgd(eta=1.0, momentum=0.9)"}


@dataclass(frozen=True)
class Task:
    """A dataset divided among clients, a model, and the grid that methods are tuned over.

    Attributes
    ----------
    name, title : str
    rounds : int
    config : mapping
        Settings that all methods share.
    grid : mapping of str to mapping
        Settings that each method is tuned over.
    ours : mapping
        Settings of our own methods, where what suits clients that are drawn does not suit
        these.
    """

    name: str
    title: str
    rounds: int
    config: Config
    grid: Mapping[str, Config] = field(default_factory=dict)
    ours: Config = field(default_factory=dict)


_LOCAL: Config = {
    "server-average": "none",
    "train.local-epochs": 1,
    "train.momentum": 0.0,
    "train.clip-norm": 0.0,
    "evaluate.central-every": 2,
    "evaluate.federated-every": 0,
    "simulation.uplink-mbps": 10.0,
    "simulation.downlink-mbps": 10.0,
}
FASHION = Task(
    "fashion",
    "Fashion-MNIST, cnn, 100 clients by dirichlet(0.3), 10 a round",
    60,
    {
        **_LOCAL,
        "dataset": "fashion-mnist",
        "model": "cnn",
        "data.partition": "dirichlet(0.3)",
        "simulation.num-supernodes": 100,
        "round.clients": 10,
    },
    {
        "rate .1, FedAvgM 1.0": {"train.learning-rate": 0.1, **MORE_MOMENTUM},
        "rate .1, FedAvgM 0.5": {"train.learning-rate": 0.1, **MOMENTUM},
        "rate .1, FedAvg": {"train.learning-rate": 0.1, **AVERAGE},
        "rate .05, FedAvgM 1.0": {"train.learning-rate": 0.05, **MORE_MOMENTUM},
    },
)
SKEWED = replace(
    FASHION,
    name="skewed",
    title="Fashion-MNIST, cnn, 100 clients by dirichlet(0.1), 10 a round",
    rounds=80,
    config={**FASHION.config, "data.partition": "dirichlet(0.1)"},
    grid={
        "rate .1, FedAvgM 0.5": {"train.learning-rate": 0.1, **MOMENTUM},
        "rate .05, FedAvgM 0.5": {"train.learning-rate": 0.05, **MOMENTUM},
    },
)
SHAKESPEARE = Task(
    "shakespeare",
    "Shakespeare, char_lm, 100 roles, 10 a round",
    48,
    {
        **_LOCAL,
        "dataset": "shakespeare",
        "model": "char_lm",
        "data.partition": "natural",
        "simulation.num-supernodes": 100,
        "round.clients": 10,
        "evaluate.central-every": 4,
    },
    {
        "rate 1, FedAvgM 0.5": {"train.learning-rate": 1.0, **MOMENTUM},
        "rate 1, FedAvgM 1.0": {"train.learning-rate": 1.0, **MORE_MOMENTUM},
        "rate 1, FedAvg": {"train.learning-rate": 1.0, **AVERAGE},
    },
)
DIGITS = Task(
    "digits",
    "digits, mlp, 10 clients by dirichlet(0.5), all in each round",
    40,
    {
        "dataset": "digits",
        "model": "mlp",
        "data.partition": "dirichlet(0.5)",
        "simulation.num-supernodes": 10,
        "server-average": "none",
        "evaluate.federated-every": 0,
        "simulation.uplink-mbps": 10.0,
        "simulation.downlink-mbps": 10.0,
        "train.local-epochs": 3,
    },
    {
        "rate .1, FedAvg": {"train.learning-rate": 0.1, **AVERAGE},
        "rate .1, FedAvgM 0.3": {
            "train.learning-rate": 0.1,
            "server-optimizer": "sgd(eta=0.3, momentum=0.9)",
        },
        "rate .05, FedAvg": {"train.learning-rate": 0.05, **AVERAGE},
    },
    FREQUENT,
)
TASKS: Final[Mapping[str, Task]] = {
    task.name: task for task in (FASHION, SKEWED, SHAKESPEARE, DIGITS)
}


def growth() -> list[Task]:
    """Return Fashion-MNIST with other numbers of clients and other sizes of the model."""
    few: Config = {"simulation.num-supernodes": 10, "round.clients": 0}
    many: Config = {"simulation.num-supernodes": 1000, "round.clients": 100}
    models = "import:benchmarks.time_to_accuracy.models"
    changes: dict[str, tuple[str, int, Config]] = {
        "clients-10": ("10 clients, all in each round", 16, few),
        "clients-1000": ("1,000 clients, 100 a round", 60, many),
        "model-small": ("0.03 million parameters", 60, {"model": f"{models}:small"}),
        "model-large": ("1.7 million parameters", 24, {"model": f"{models}:large"}),
    }
    return [
        replace(
            FASHION,
            name=name,
            title=title,
            rounds=rounds,
            config={**FASHION.config, **change},
            ours=FREQUENT if change is few else NOTHING,
        )
        for name, (title, rounds, change) in changes.items()
    ]
