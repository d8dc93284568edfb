"""One config on all four engines: the same run everywhere, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

import run_simulation
from fl_opt.config import ConfigValue
from fl_opt.deployment.local import FinishedRun, LocalDeployment, LocalSimulation

pytestmark = pytest.mark.integration

CLIENTS = 2
ROUNDS = 2
CONFIG: dict[str, ConfigValue] = {
    "num-server-rounds": ROUNDS,
    "train.local-epochs": 1,
    "uplink.codec": "topk(0.05) | ternary",
    # Payloads that are large beside what a SuperLink adds; see exchange/traffic.py.
    "downlink.mode": "full",
    "downlink.codec": "fp32",
    "evaluate.mode": "message",
    "simulation.num-supernodes": CLIENTS,
    "round.min-nodes": CLIENTS,
    "evaluate.federated-every": ROUNDS,
    "output.save-model": True,
}
ENGINES = ("virtual", "ray", "flwr-run", "deployment")


@dataclass(frozen=True)
class Outcome:
    """What a run left: its summary and rounds, the model and, from Flower, its own view."""

    summary: dict[str, Any]
    rounds: list[dict[str, Any]]
    model: dict[str, NDArray[Any]]
    flower: FinishedRun | None = None
    survivors: tuple[psutil.Process, ...] = ()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """Run on an engine, once for all tests, whether it works or not."""
    folder = tmp_path_factory.mktemp("runs")
    outcomes: dict[str, Outcome | Exception] = {}

    def of(engine: str) -> Outcome:
        if engine not in outcomes:
            try:
                outcomes[engine] = _run(engine, folder)
            except Exception as error:
                outcomes[engine] = error
        result = outcomes[engine]
        if isinstance(result, Exception):
            raise result
        return result

    return of


def _run(engine: str, folder: Path) -> Outcome:
    output = {"output.folder": str(folder), "output.name": engine}
    config = {**CONFIG, **output}
    if engine in ("virtual", "ray"):
        run_simulation.run(config, engine, quiet=True)  # type: ignore[arg-type]
        return _read(folder / engine)
    if engine == "flwr-run":
        simulated = f"num-supernodes={CLIENTS} client-resources-num-cpus=1"
        with LocalSimulation() as flower:
            options = ("--federation-config", simulated)
            finished = flower.run(run_simulation.PROJECT, config, *options, timeout=400.0)
            processes = tuple(flower.processes())
    else:
        with LocalDeployment(CLIENTS) as flower:
            finished = flower.run(run_simulation.PROJECT, config, timeout=400.0)
            processes = tuple(flower.processes())
    assert finished.completed, finished
    assert processes
    survivors = tuple(process for process in processes if _is_alive(process))
    return _read(folder / engine, finished, survivors)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _read(
    folder: Path,
    finished: FinishedRun | None = None,
    survivors: tuple[psutil.Process, ...] = (),
) -> Outcome:
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    with np.load(folder / "model.npz", allow_pickle=False) as model:
        return Outcome(
            summary=json.loads((folder / "summary.json").read_text()),
            rounds=[json.loads(line) for line in lines],
            model=dict(model),
            flower=finished,
            survivors=survivors,
        )


@pytest.mark.parametrize("engine", ENGINES)
def test_completes(engine: str, outcome: Callable[[str], Outcome]) -> None:
    result = outcome(engine)
    summary = result.summary
    assert (summary["status"], summary["rounds-done"]) == ("completed", ROUNDS)
    assert (summary["participants"], summary["failures"]) == (CLIENTS * ROUNDS, 0)
    assert [record["server-round"] for record in result.rounds] == list(range(ROUNDS + 1))
    last = result.rounds[-1]
    assert last["federated-accuracy"] is not None
    assert last["client-peak-memory-bytes"] > 50e6
    assert all(
        (record["virtual-seconds"] is None) == (engine != "virtual") for record in result.rounds
    )


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_same_model_as_on_the_virtual_engine(
    engine: str, outcome: Callable[[str], Outcome]
) -> None:
    expected, found = outcome("virtual"), outcome(engine)
    assert found.model.keys() == expected.model.keys()
    for name, array in expected.model.items():
        np.testing.assert_allclose(found.model[name], array, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(expected.rounds, found.rounds, strict=True):
        assert theirs["bytes-down"] == mine["bytes-down"]
        assert theirs["bytes-up"] == pytest.approx(mine["bytes-up"], rel=0.01)
        assert theirs["accuracy"] == pytest.approx(mine["accuracy"], abs=0.003)
        # whole messages differ by the digits of ids alone
        assert theirs["message-bytes-up"] == pytest.approx(mine["message-bytes-up"], rel=0.05)


def test_the_superlink_counts_what_we_count(outcome: Callable[[str], Outcome]) -> None:
    result = outcome("deployment")
    assert result.flower is not None
    counted = result.flower.traffic
    ours = result.summary["communication"]
    down, up = ours["down"]["message-bytes"], ours["up"]["message-bytes"]
    assert down + up == pytest.approx(counted.inbound + counted.outbound, rel=0.10)
    assert down == pytest.approx(counted.outbound, rel=0.10)
    # Replies of one kilobyte: what Flower says about a message is a large part of it.
    replies = CLIENTS * (ROUNDS + 1)
    assert 0 < counted.inbound - up < 1500 * replies


@pytest.mark.parametrize("engine", ENGINES[2:])
def test_no_process_survives(engine: str, outcome: Callable[[str], Outcome]) -> None:
    assert outcome(engine).survivors == ()
