"""Processes of a real network are killed in mid-round, and the job is finished all the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fl_opt.checkpoint import Checkpoints, unpack_state
from fl_opt.config import ConfigValue
from fl_opt.deployment.local import LocalDeployment
from run_simulation import PROJECT

pytestmark = pytest.mark.integration

CLIENTS = 3
ROUNDS = 3
CONFIG: dict[str, ConfigValue] = {
    "dataset": "synthetic",  # a ClientApp starts for each message: it should start fast
    "num-server-rounds": ROUNDS,
    "train.local-epochs": 1,
    "simulation.num-supernodes": CLIENTS,
    "round.min-nodes": CLIENTS,
    "evaluate.federated-every": 0,
    "checkpoint.every": 1,
    "output.name": "run",
}
PATIENCE = 600.0  # seconds: the machine may be busy with other things


def test_a_supernode_is_killed_in_mid_round_and_restarted(tmp_path: Path) -> None:
    with LocalDeployment(CLIENTS, poll_seconds=0.2) as flower:
        run = flower.start_run(
            PROJECT, {**CONFIG, "output.folder": str(tmp_path)}, timeout=PATIENCE
        )
        until(flower, lambda: flower.received(1) == 2 and flower.is_busy(1))
        assert [record["participants"] for record in rounds(tmp_path)] == [0, CLIENTS]
        killed = flower.node_id(1)
        assert killed is not None
        flower.kill_supernode(1)
        flower.start_supernode(1)
        # Or two heartbeats have to be missing before the SuperLink says that it is gone.
        flower.unregister_supernode(killed)
        finished = flower.wait(run, timeout=PATIENCE)
        restarted = flower.node_id(1)
        processes = tuple(flower.processes())

    assert finished.completed, finished
    first, second, third = rounds(tmp_path)[1:]
    assert (second["participants"], second["failures"]) == (CLIENTS - 1, 1)
    errors = {c["node-id"]: c["error"] for c in second["clients"] if c["error"]}
    assert set(errors) == {killed}
    assert "Node Unavailable" in errors[killed]
    assert (third["participants"], third["failures"]) == (CLIENTS, 0)
    assert third["loss"] < second["loss"] < first["loss"]
    assert killed in nodes(first)
    assert nodes(third) == (nodes(first) - {killed}) | {restarted}
    updates = {int(node): account["updates"] for node, account in books(tmp_path).items()}
    assert sum(updates.values()) == sum(r["participants"] for r in rounds(tmp_path))
    assert restarted is not None
    assert (updates[killed], updates[restarted]) == (1, 1)

    assert processes
    assert not any(is_alive(process) for process in processes)
    assert not flower.home.exists()


def test_serverapp_and_superlink_are_killed_in_mid_round_and_the_job_resumed(
    tmp_path: Path,
) -> None:
    two: dict[str, ConfigValue] = {"num-server-rounds": 2, "output.folder": str(tmp_path)}
    config = {**CONFIG, **two}
    with LocalDeployment(CLIENTS, persistent=True, poll_seconds=0.2) as flower:
        flower.start_run(PROJECT, config, timeout=PATIENCE)
        until(flower, lambda: flower.received(1) == 2 and flower.is_busy(1))
        flower.kill_serverapp()
        flower.start_run(PROJECT, {**config, "resume": True}, timeout=PATIENCE)
        until(flower, lambda: flower.received(1) == 3 and flower.is_busy(1))
        flower.kill_superlink()
        assert [record["server-round"] for record in rounds(tmp_path)] == [0, 1]
        flower.start_superlink()
        last = flower.start_run(PROJECT, {**config, "resume": True}, timeout=PATIENCE)
        finished = flower.wait(last, timeout=PATIENCE)
        connected = {flower.node_id(index) for index in range(CLIENTS)}
        processes = tuple(flower.processes())

    assert finished.completed, finished
    records = rounds(tmp_path)
    assert [record["server-round"] for record in records] == list(range(3))
    for record in records[1:]:
        assert (record["participants"], record["failures"]) == (CLIENTS, 0)
        assert nodes(record) == connected  # SuperNodes lived on: they reconnect by themselves
    losses = [record["loss"] for record in records]
    assert losses == sorted(losses, reverse=True)
    # What the killed servers had accepted after their last checkpoints is in no book.
    accounts = books(tmp_path)
    assert {int(node) for node in accounts} == connected
    assert [account["updates"] for account in accounts.values()] == [2] * CLIENTS

    assert processes
    assert not any(is_alive(process) for process in processes)
    assert not flower.home.exists()


def books(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the accounts of all clients from the last checkpoint."""
    blobs = Checkpoints(folder / "run" / "checkpoint").load()
    values, _ = unpack_state(blobs["strategy"])
    accounts: dict[str, dict[str, Any]] = values["ledger"]["accounts"]
    assert not any(account["taken"] for account in accounts.values())
    return accounts


def rounds(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "run" / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def nodes(record: dict[str, Any]) -> set[int]:
    return {client["node-id"] for client in record["clients"]}


def until(flower: LocalDeployment, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            logs = (
                f"{log.name}\n{log.read_text(errors='replace')}"
                for log in flower.home.glob("*.log")
            )
            pytest.fail("it did not come to that in time\n" + "\n".join(logs))
        time.sleep(0.1)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
