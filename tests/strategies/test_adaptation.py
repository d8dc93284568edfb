"""Codecs by bandwidth, on the virtual engine: the slow send less, and rounds get shorter."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import run_simulation
from fl_opt.config import ConfigValue
from fl_opt.errors import ConfigError
from fl_opt.exchange.downlink import DownlinkOptions
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting import load_run
from strategies import CompressedFedAvg, CompressedFedBuff
from tests.strategies.federation import run

CONFIG: dict[str, ConfigValue] = {
    "dataset": "synthetic",
    "model": "mlp",
    "data.partition": "iid",
    "data.max-examples": 400,
    "simulation.num-supernodes": 10,
    "simulation.uplink-mbps": 0.1,
    "simulation.downlink-mbps": 0.2,
    "simulation.spread": 1.2,
    "num-server-rounds": 8,
    "train.local-epochs": 1,
    "uplink.feedback": "none",
    "downlink.mode": "per-client",
    "evaluate.federated-every": 0,
    "evaluate.central-every": 4,
    "seed": 3,
}
AUTO: dict[str, ConfigValue] = {
    "uplink.codec": "auto(leanest=0.005, richest=0.08)",
    "downlink.codec": "auto(leanest=0.25, richest=2.0)",
}
RICHEST: dict[str, ConfigValue] = {
    "uplink.codec": "topk(0.08) | ternary",
    "downlink.codec": "ecsq(2.0)",
}


def rounds(folder: Path, config: dict[str, ConfigValue]) -> list[RoundRecord]:
    run_simulation.run({**CONFIG, **config}, output=folder, quiet=True)
    return load_run(folder).records


def facts(records: list[RoundRecord]) -> list[Any]:
    return [
        (
            r.virtual_seconds,
            r.bytes_up,
            r.bytes_down,
            r.train_loss,
            [c.codec_up for c in r.clients],
        )
        for r in records
    ]


def test_the_slow_get_less_and_rounds_get_shorter(tmp_path: Path) -> None:
    auto, richest = rounds(tmp_path / "a", AUTO), rounds(tmp_path / "b", RICHEST)

    def late(records: list[RoundRecord]) -> float:
        return statistics.fmean(r.virtual_seconds or 0.0 for r in records[4:])

    assert late(auto) < 0.6 * late(richest)
    clients = sorted(auto[-1].clients, key=lambda c: c.mbps_up or 0.0)
    assert clients[0].bytes_up < clients[-1].bytes_up
    assert clients[0].bytes_down < clients[-1].bytes_down
    assert clients[-1].codec_up == "topk(0.08) | ternary"
    assert clients[0].codec_up != clients[-1].codec_up
    assert auto[1].clients[0].codec_down.startswith("ecsq(")
    again = rounds(tmp_path / "c", AUTO)
    assert facts(again) == facts(auto)


def test_a_resumed_run_chooses_the_same(tmp_path: Path) -> None:
    whole = rounds(tmp_path / "whole", {**AUTO, "simulation.links": "lognormal(0.8, every=5)"})
    cut = {**AUTO, "simulation.links": "lognormal(0.8, every=5)", "checkpoint.every": 1}
    rounds(tmp_path / "cut", {**cut, "num-server-rounds": 5})
    resumed = rounds(tmp_path / "cut", {**cut, "resume": True})
    assert facts(resumed) == facts(whole)


def test_clients_are_told_and_say_how_large_their_update_was() -> None:
    _, recorder = run(codec="auto(0.1, 0.4)", num_rounds=3, feedback="residual")
    clients = [client for record in recorder.rounds for client in record.clients]
    assert clients
    assert {c.codec_up for c in clients if c.num_examples} <= {
        f"topk({share}) | ternary" for share in (0.1, 0.2, 0.4)
    }
    assert all(c.mbps_up and np.isfinite(c.mbps_up) for c in clients if c.num_examples)


def test_without_rounds_too() -> None:
    _, recorder = run(
        strategy=CompressedFedBuff,
        codec="auto(0.1, 0.4)",
        buffer_size=2,
        max_concurrency=3,
        num_rounds=6,
        feedback="none",
    )
    assert sum(record.participants for record in recorder.rounds) == 12


@pytest.mark.parametrize("mode", ["full", "shared", "auto"])
def test_auto_bits_need_a_reference_for_each_client(mode: str) -> None:
    with pytest.raises(ConfigError, match=r"needs downlink\.mode = 'per-client', not"):
        CompressedFedAvg("int8", downlink=DownlinkOptions(mode, "auto(0.5, 1.0)"))


def test_a_wrong_spec_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match=r"leanest = 0\.3 and richest = 0\.1"):
        CompressedFedAvg("auto(0.3, 0.1)")
