"""Codes that add up, through the SecAgg+ protocol that comes with Flower."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import (
    FitRes,
    Parameters,
    bytes_to_ndarray,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.server import LegacyContext, ServerConfig
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

from fl_opt.codecs import SumCodec
from fl_opt.codecs.update import Vector
from fl_opt.simulation.grid import FIRST_NODE_ID, VirtualGrid
from tests.simulation.counting import DEVICE

CLIENTS, SIZE, ROUNDS = 5, 400, 2
CODEC = SumCodec(SIZE, density=0.25, step=1 / 64, bits=20, num_clients=CLIENTS)
SPREAD = 0.5


def update_of(partition: int, server_round: int) -> Vector:
    generator = np.random.default_rng([partition, server_round])
    return generator.normal(0, SPREAD, SIZE).astype(np.float32)


def codes_of(partition: int, server_round: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    update = update_of(partition, server_round)
    return CODEC.signed(CODEC.encode(update, shared_seed=server_round, seed=partition))


class Client(NumPyClient):
    def __init__(self, partition: int) -> None:
        self.partition = partition

    def fit(self, parameters: Any, config: Any) -> tuple[Any, int, dict[str, Any]]:
        codes = codes_of(self.partition, int(config["server-round"]))
        # One example each, of one at most: all weigh the same, and nothing is multiplied.
        return [codes.astype(np.float64)], 1, {}


def app() -> ClientApp:
    def client_fn(context: Context) -> Any:
        return Client(int(context.node_config["partition-id"])).to_client()

    return ClientApp(client_fn=client_fn, mods=[secaggplus_mod])


class Summing(FedAvg):
    """Keeps the sums that the server sees: nothing else of the clients reaches it."""

    def __init__(self) -> None:
        super().__init__(
            min_fit_clients=CLIENTS,
            min_available_clients=CLIENTS,
            fraction_evaluate=0.0,
            initial_parameters=ndarrays_to_parameters([np.zeros(CODEC.count)]),
            on_fit_config_fn=lambda server_round: {"server-round": server_round},
        )
        self.sums: list[Vector] = []
        self.counts: list[int] = []

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: Any
    ) -> tuple[Parameters | None, dict[str, Any]]:
        [mean] = parameters_to_ndarrays(results[0][1].parameters)
        count = len(results)
        total = np.round(mean * count).astype(np.int64) % CODEC.modulus
        decoded = CODEC.decode(total, shared_seed=server_round)
        self.sums.append(decoded.to_dense())
        self.counts.append(count)
        return ndarrays_to_parameters([np.zeros(CODEC.count)]), {}


class LossyGrid(VirtualGrid):
    """Keeps the masked vectors that come, and loses those of one client."""

    def __init__(self, lost: int | None) -> None:
        super().__init__(app(), CLIENTS, lambda _: DEVICE)
        self.lost = lost
        self.masked: dict[int, list[bytes]] = {}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        kept = []
        for reply in super().send_and_receive(messages, timeout=timeout):
            assert not reply.has_error(), reply.error
            record = reply.content.config_records[RECORD_KEY_CONFIGS]
            vector = cast(list[bytes] | None, record.get(Key.MASKED_PARAMETERS))
            sender = reply.metadata.src_node_id
            if vector is not None and sender - FIRST_NODE_ID == self.lost:
                continue  # it has shared its keys, and is gone before its vector comes
            if vector is not None:
                self.masked.setdefault(sender - FIRST_NODE_ID, []).append(vector[1])
            kept.append(reply)
        return kept


def aggregated(lost: int | None = None) -> tuple[Summing, LossyGrid]:
    grid = LossyGrid(lost)
    strategy = Summing()
    context = LegacyContext(
        context=Context(0, 0, {}, state=RecordDict(), run_config={}),
        config=ServerConfig(num_rounds=ROUNDS),
        strategy=strategy,
    )
    secure = SecAggPlusWorkflow(
        num_shares=CLIENTS,
        reconstruction_threshold=3,
        max_weight=1.0,
        clipping_range=float(CODEC.largest_code),
        quantization_range=2 * CODEC.largest_code,  # one level for each code
        modulus_range=CODEC.modulus,
    )
    DefaultWorkflow(fit_workflow=secure)(grid, context)
    return strategy, grid


@pytest.mark.parametrize("lost", [None, 2])
def test_the_server_gets_the_exact_sum_and_nothing_else(lost: int | None) -> None:
    strategy, grid = aggregated(lost)
    there = [index for index in range(CLIENTS) if index != lost]
    assert strategy.counts == [len(there)] * ROUNDS
    for server_round, total in enumerate(strategy.sums, 1):
        codes = {index: codes_of(index, server_round) for index in there}
        positions = CODEC.positions(server_round)
        np.testing.assert_array_equal(
            total[positions],
            (np.sum(list(codes.values()), axis=0) * CODEC.step).astype(np.float32),
        )
        exact = np.sum([update_of(index, server_round) for index in there], axis=0)
        assert np.abs(total - exact)[positions].max() < len(there) * CODEC.step
        assert not np.delete(total, positions).any()
        assert set(grid.masked) == set(there)
        for index, vectors in grid.masked.items():
            masked = bytes_to_ndarray(vectors[server_round - 1])
            assert masked.shape == (CODEC.count,)
            plain = (codes[index] + CODEC.largest_code) % CODEC.modulus
            assert np.mean(masked == plain) < 0.1  # by chance alone
