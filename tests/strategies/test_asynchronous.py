"""Nobody waits for the slowest: FedBuff, FedAsync, over-selection, deadlines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_opt.errors import ConfigError
from fl_opt.exchange.downlink import DownlinkOptions
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.simulation.faults import FaultPlan
from strategies import CompressedFedAsync, CompressedFedAvg, CompressedFedBuff
from strategies.pace import Rounds
from tests.strategies.cutting import bits, cut_and_resumed, evaluate_until, facts
from tests.strategies.federation import expected_mean, run, weights

CODED: dict[str, Any] = {
    "codec": "topk(0.3) | ternary",
    "downlink": DownlinkOptions("auto", "ecsq(step=0.01)", "seed"),
    "evaluate_every": 3,
    "evaluate_mode": "piggyback",
    "seed": 3,
}


def staleness(records: list[RoundRecord]) -> list[int]:
    return [s for record in records for client in record.clients for s in client.staleness]


def test_with_equal_clients_and_a_buffer_for_all_fedbuff_is_fedavg() -> None:
    options: dict[str, Any] = {
        "num_rounds": 5,
        "server_optimizer": "sgd(0.7, 0.5)",
        "evaluate_every": 0,
    }
    rounds, _ = run(**options)
    buffered, record = run(
        **options, strategy=CompressedFedBuff, buffer_size=4, max_concurrency=4
    )
    assert bits(buffered.arrays) == bits(rounds.arrays)
    assert set(staleness(record.rounds)) == {0}


def test_a_stale_update_counts_by_its_weight_against_its_own_base() -> None:
    """Of two clients the fast one is taken first; the slow one's update joins step 2."""
    options: dict[str, Any] = {
        "num_clients": 2,
        "spread": 1.5,
        "num_rounds": 2,
        "feedback": "none",
        "evaluate_every": 0,
        "max_concurrency": 2,
        "strategy": CompressedFedAsync,
    }
    sizes = {}
    for rule in ("constant", "hinge(1.0, 0)"):
        path: list[Any] = []
        _, recorder = run(
            **options,
            server_optimizer="sgd",
            staleness=rule,
            evaluate_fn=lambda _, arrays, path=path: path.append(weights(arrays)),
        )
        late = recorder.rounds[2].clients
        sizes[rule] = path[2] - path[1], [c.staleness for c in late if c.staleness]
    constant, hinged = sizes["constant"], sizes["hinge(1.0, 0)"]
    assert constant[1] == hinged[1] == [[1]]
    np.testing.assert_allclose(hinged[0], constant[0] / 2, atol=1e-6)


def test_the_number_of_clients_at_work_is_kept_up() -> None:
    _, recorder = run(
        strategy=CompressedFedBuff,
        num_clients=12,
        spread=1.5,
        num_rounds=15,
        buffer_size=2,
        max_concurrency=5,
        **CODED,
    )
    records = recorder.rounds[1:]
    assert [record.participants for record in records] == [2] * 15
    asked = sum(record.dense_bytes_down for record in records) / (4 * 40)
    assert asked in (33, 34)  # 5 at first, and one for each of 30 updates but the last
    assert max(staleness(records)) >= 1
    assert sum(record.stale for record in records) == sum(s > 0 for s in staleness(records))
    assert all(record.failures == 0 for record in records)


def test_waiting_for_a_part_takes_less_time_than_waiting_for_all() -> None:
    options: dict[str, Any] = {"num_clients": 12, "spread": 1.5, "num_rounds": 8, **CODED}
    ways: dict[str, dict[str, Any]] = {
        "all": {"clients_per_round": 4},
        "goal": {"clients_per_round": 4, "pace": Rounds(2.0)},
        "buffer": {"strategy": CompressedFedBuff, "buffer_size": 4, "max_concurrency": 8},
        "deadline": {"clients_per_round": 4, "timeout": 1.0},
    }
    times = {}
    for name, own in ways.items():
        _, recorder = run(**options, **own)
        times[name] = sum(record.virtual_seconds or 0.0 for record in recorder.rounds)
    assert times["goal"] < 0.7 * times["all"]
    assert times["buffer"] < 0.7 * times["all"]
    assert times["deadline"] <= 8.0 + 1e-6 < times["all"]


@pytest.mark.parametrize("late", ["accept", "refuse"])
def test_over_selection_closes_a_round_at_its_goal(late: str) -> None:
    _, recorder = run(
        num_clients=10,
        spread=1.5,
        num_rounds=6,
        clients_per_round=4,
        pace=Rounds(1.5),
        late_replies=late,
        **CODED,
    )
    records = recorder.rounds[1:]
    on_time = [record.participants - record.stale for record in records]
    assert on_time == [4] * 6
    assert all(record.failures == 0 for record in records)
    assert (sum(record.stale for record in records) > 0) is (late == "accept")


def test_clients_at_work_are_not_asked_again() -> None:
    """With all clients wanted in each round, those that miss the deadline are left alone."""
    _, recorder = run(num_clients=8, spread=2.0, num_rounds=10, timeout=1.5, evaluate_every=0)
    asked = [
        {c.node_id for c in record.clients if c.bytes_down} for record in recorder.rounds[1:]
    ]
    assert [len(nodes) < 8 for nodes in asked[:2]] == [False, True]
    assert sum(record.ignored for record in recorder.rounds) == 0
    assert sum(record.stale for record in recorder.rounds) > 0


def test_a_round_in_which_everybody_is_at_work_waits_for_them() -> None:
    result, recorder = run(num_clients=2, spread=0.1, num_rounds=3, timeout=0.8, seed=1)
    assert [record.participants for record in recorder.rounds] == [0, 0, 2, 0]
    assert [record.stale for record in recorder.rounds][2] == 0  # no step was missed
    np.testing.assert_allclose(weights(result.arrays), expected_mean(0, 1), atol=1e-6)


@pytest.mark.parametrize("ttl", [None, 2.0])
def test_clients_whose_messages_were_lost_are_asked_again(ttl: float | None) -> None:
    """Once they have been silent for much longer than anybody takes, or their time is over."""
    _, recorder = run(
        faults=FaultPlan(seed=2, lose_up=0.5),
        num_clients=6,
        num_rounds=12,
        timeout=5.0,
        evaluate_every=0,
        ttl=ttl,
    )
    used = [record.participants for record in recorder.rounds[1:]]
    assert min(used[6:]) >= 1
    assert sum(used) > 12 * 6 * 0.3


@pytest.mark.parametrize("faulty", [False, True])
def test_an_asynchronous_run_is_resumed_bit_for_bit(tmp_path: Path, faulty: bool) -> None:
    faults = FaultPlan(
        seed=4, lose_up=0.1, lose_down=0.1, restart=0.1, duplicate_up=0.2, corrupt_up=0.1
    )
    options: dict[str, Any] = {
        **CODED,
        "strategy": CompressedFedBuff,
        "server_optimizer": "sgd(eta=0.7, momentum=0.6)",
        "selection": "available | oort",
        "buffer_size": 3,
        "max_concurrency": 6,
        "num_clients": 9,
        "num_rounds": 10,
        "ttl": 20.0,
        "spread": 1.0,
        "faults": faults if faulty else None,
    }
    whole, record = run(**options, evaluate_fn=evaluate_until(10))
    assert max(staleness(record.rounds)) >= 1
    result, told = cut_and_resumed(options, (3, 4, 10), tmp_path)
    assert bits(result.arrays) == bits(whole.arrays)
    assert facts(told) == facts(record.rounds)


def test_replies_that_are_there_when_a_step_is_taken_survive_a_resume(tmp_path: Path) -> None:
    """Equal clients answer at the same moment; FedAsync takes one of them at a time."""
    options: dict[str, Any] = {
        "strategy": CompressedFedAsync,
        "num_rounds": 9,
        "evaluate_every": 0,
        "max_concurrency": 4,
    }
    whole, record = run(**options, evaluate_fn=evaluate_until(9))
    result, _ = cut_and_resumed(options, (2, 9), tmp_path)
    assert staleness(record.rounds)[:4] == [0, 1, 2, 3]
    assert bits(result.arrays) == bits(whole.arrays)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="late_replies = 'refuse'"):
        CompressedFedBuff(late_replies="refuse")
    with pytest.raises(ConfigError, match="size = 0 is not at least 1"):
        CompressedFedBuff(buffer_size=0)
    with pytest.raises(ConfigError, match=r"over_selection = 0\.5 is not from 1 to 100"):
        CompressedFedAvg(pace=Rounds(0.5))
