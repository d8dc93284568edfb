"""Runs of the toy federation, and what they report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fl_opt.client import numpy_client_app
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.simulation.faults import FaultPlan
from strategies import CompressedFedAvg
from tests.toy import first_arrays, initial_arrays, pull_client_fn, target, toy_grid

Tamper = Callable[[Message, Context, ClientApp], Message]
"""Answers in place of the app, which it is given."""


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rounds: list[RoundRecord] = []
        self.calls: list[str] = []

    def on_start(self, num_rounds: int) -> None:
        self.calls.append(f"start {num_rounds}")

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        self.calls.append(f"reply {server_round}: {received}/{expected}")

    def on_round(self, record: RoundRecord) -> None:
        self.rounds.append(record)

    def on_end(self) -> None:
        self.calls.append("end")


def weights(arrays: ArrayRecord | None) -> NDArray[np.float32]:
    assert arrays is not None
    return arrays["weight"].numpy().reshape(-1)


def run(
    tamper: Tamper | None = None,
    *,
    app: ClientApp | None = None,
    num_clients: int = 4,
    num_rounds: int = 1,
    timeout: float = 3600.0,
    evaluate_fn: Any = None,
    faults: FaultPlan | None = None,
    resume: bool = False,
    strategy: Callable[..., Strategy] = CompressedFedAvg,
    spread: float = 0.0,
    **arguments: Any,
) -> tuple[Any, Recorder]:
    """Federate the toy model; ``spread`` is how much clients differ in speed."""
    app = app or numpy_client_app(pull_client_fn, first_arrays)
    handle = (lambda m, c: tamper(m, c, app)) if tamper else app
    recorder = Recorder()
    defaults: dict[str, Any] = {"codec": "none", "min_train_nodes": 1, "min_evaluate_nodes": 1}
    built: Any = strategy(**{**defaults, "observers": [recorder], **arguments})
    grid = toy_grid(handle, num_clients, faults, spread)  # type: ignore[arg-type]
    result = built.start(
        grid, initial_arrays(), num_rounds, timeout, evaluate_fn=evaluate_fn, resume=resume
    )
    return result, recorder


def expected_mean(*partitions: int) -> NDArray[np.float64]:
    shares = np.array([1.0 + p for p in partitions])
    targets = np.stack([target(p) for p in partitions]).astype(np.float64)
    return np.asarray(shares / shares.sum() @ targets / 2, np.float64)
