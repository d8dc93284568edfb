"""Whole runs on real data, on the virtual engine: a small slice of each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_opt.config import ConfigValue
from fl_opt.errors import DataError
from fl_opt.reporting import load_run
from run_simulation import run

pytestmark = pytest.mark.integration

FASHION: dict[str, ConfigValue] = {
    "dataset": "fashion-mnist",
    "model": "cnn",
    "data.partition": "dirichlet(0.3)",
    "data.max-examples": 12000,
    "round.clients": 10,
    "simulation.num-supernodes": 100,
    "num-server-rounds": 4,
    "train.local-epochs": 1,
    "uplink.codec": "topk(0.05) | ternary",
    "uplink.feedback": "none",
    "server-average": "none",  # which is behind in the first few rounds
    "evaluate.federated-every": 0,
    "evaluate.central-every": 4,
}
SHAKESPEARE: dict[str, ConfigValue] = {
    "dataset": "shakespeare",
    "model": "char_lm",
    "data.partition": "natural",
    "data.max-examples": 1500,
    "round.clients": 5,
    "simulation.num-supernodes": 30,
    "num-server-rounds": 3,
    "train.local-epochs": 1,
    "train.learning-rate": 0.5,
    "evaluate.federated-every": 3,
    "evaluate.central-every": 3,
}
DIGITS: dict[str, ConfigValue] = {"evaluate.federated-every": 0, "evaluate.central-every": 10}


def run_task(config: dict[str, ConfigValue], folder: Path) -> dict[str, Any]:
    try:
        return run(config, output=folder, quiet=True).to_dict()
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("config", [FASHION, SHAKESPEARE], ids=["fashion-mnist", "shakespeare"])
def test_task_trains_with_a_fiftieth_of_the_uplink(
    config: dict[str, ConfigValue], tmp_path: Path
) -> None:
    summary = run_task(config, tmp_path / "run")
    rounds = int(config["num-server-rounds"])
    assert summary["participants"] == rounds * int(config["round.clients"])
    assert summary["failures"] == 0
    assert summary["communication"]["up"]["compression-ratio"] > 50
    records = load_run(tmp_path / "run").records
    first, last = records[0].loss, records[-1].loss
    assert first is not None
    assert last is not None
    assert last < 0.98 * first
    chosen = [{client.node_id for client in record.clients} for record in records[1:]]
    assert len(set.union(*chosen)) > int(config["round.clients"])


@pytest.mark.slow
def test_digits_end_within_a_point_of_the_uncompressed_run(tmp_path: Path) -> None:
    coded = run_task(DIGITS, tmp_path / "coded")
    plain = run_task({**DIGITS, "uplink.codec": "none"}, tmp_path / "plain")
    accuracy = [s["convergence"]["final-accuracy"] for s in (coded, plain)]
    assert accuracy[0] > accuracy[1] - 0.01
    assert accuracy[0] > 0.94
    payloads = [s["communication"]["up"]["payload-bytes"] for s in (coded, plain)]
    messages = [s["communication"]["up"]["message-bytes"] for s in (coded, plain)]
    assert payloads[1] > 150 * payloads[0]
    assert messages[1] > 50 * messages[0]


def test_two_runs_with_one_seed_are_bit_identical(tmp_path: Path) -> None:
    config = {**DIGITS, "num-server-rounds": 3, "output.save-model": True, "round.clients": 6}
    models, rows = [], []
    for name in ("first", "second"):
        run_task(config, tmp_path / name)
        with np.load(tmp_path / name / "model.npz") as arrays:
            models.append(b"".join(arrays[key].tobytes() for key in arrays.files))
        rows.append(
            [
                (
                    *(r.bytes_up, r.bytes_down, r.message_bytes_up, r.message_bytes_down),
                    *(r.virtual_seconds, r.train_loss, r.participants),
                    *((c.node_id, c.bytes_up, c.num_examples) for c in r.clients),
                )
                for r in load_run(tmp_path / name).records
            ]
        )
    assert models[0] == models[1]
    assert rows[0] == rows[1]
