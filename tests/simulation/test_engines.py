"""Both engines run the same apps with the same run config."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fl_opt.config import SimulationSettings
from fl_opt.errors import ConfigError
from fl_opt.simulation import VirtualGrid, build_device_model, engines
from fl_opt.simulation.engines import run_ray, run_virtual
from tests.simulation.apps import client_app, metrics_of, server_app

RUN_CONFIG: dict[str, bool | float | int | str] = {
    "step": 2,
    "uplink.codec": "int8",
    "flag": True,
    "rate": 0.5,
}


DEVICES = build_device_model(SimulationSettings(), seed=1)


def serve(grid: Grid, context: Context) -> None:
    """Two rounds with all clients; what they say goes into ``context.state``."""
    nodes = list(grid.get_node_ids())
    for server_round in (1, 2):
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        messages = [Message(content, node, "train") for node in nodes]
        for reply in grid.send_and_receive(messages, timeout=240.0):
            if reply.has_error():
                failure = ConfigRecord(
                    {"code": reply.error.code, "why": str(reply.error.reason)}
                )
                context.state[f"failed-{server_round}"] = failure
                continue
            record = metrics_of(reply.content)
            context.state[f"{server_round}-{record['partition']}"] = record
    context.state["config"] = ConfigRecord(dict(context.run_config))


def work(message: Message, context: Context) -> Message:
    """Count calls in the state; partition 2 fails in its first round."""
    calls = 1 + len(context.state.config_records)
    context.state[f"call-{calls}"] = ConfigRecord()
    partition = int(context.node_config["partition-id"])
    if partition == 2 and message.content.config_records["config"]["server-round"] == 1:
        raise ValueError("out of luck")
    metrics: dict[str, int | float | list[int] | list[float]] = {
        "num-examples": 1,
        "partition": partition,
        "partitions": int(context.node_config["num-partitions"]),
        "calls": calls,
        "sum": calls * int(context.run_config["step"]),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "process": os.getpid(),
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def check(context: Context) -> None:
    """What every engine has to have done."""
    assert dict(context.state.config_records["config"]) == RUN_CONFIG
    failure = context.state.config_records["failed-1"]
    assert failure["code"] == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "out of luck" in str(failure["why"])
    sums = {key: record["sum"] for key, record in context.state.metric_records.items()}
    # the failed call of partition 2 left no trace in its state
    assert sums == {"1-0": 2, "1-1": 2, "2-0": 4, "2-1": 4, "2-2": 2}
    assert {record["partitions"] for record in context.state.metric_records.values()} == {3}


def test_virtual() -> None:
    context = run_virtual(server_app(serve), client_app(work), RUN_CONFIG, 3, DEVICES)
    check(context)
    assert context.state.metric_records["1-0"]["process"] == os.getpid()


def test_virtual_passes_on_what_the_server_raises() -> None:
    def fail(grid: Grid, context: Context) -> None:
        raise ConfigError("nothing to do")

    with pytest.raises(ConfigError, match="nothing to do"):
        run_virtual(server_app(fail), client_app(work), {}, 1, DEVICES)


@pytest.mark.integration
def test_ray(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with caplog.at_level(logging.INFO):
        context = run_ray(server_app(serve), client_app(work), RUN_CONFIG, 3)
    check(context)
    record = context.state.metric_records["1-0"]
    assert record["process"] != os.getpid()
    assert record["threads"] == 1
    assert "deprecated" not in caplog.text.lower()
    assert "Traceback" not in caplog.text


@pytest.mark.integration
def test_ray_passes_on_what_the_server_raises() -> None:
    def fail(grid: Grid, context: Context) -> None:
        raise ConfigError("nothing to do")

    with pytest.raises(ConfigError, match="nothing to do"):
        run_ray(server_app(fail), client_app(work), {}, 1)


def test_ray_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="flwr\\[simulation\\]"):
        run_ray(server_app(serve), client_app(work), {}, 1)


def test_a_stopped_server_ends_at_its_next_look() -> None:
    stopped = threading.Event()
    inner = VirtualGrid(client_app(work), 1, DEVICES)
    grid = engines._StoppableGrid(inner, stopped)
    assert grid.clock is inner.clock
    assert list(grid.pull_messages([])) == []
    stopped.set()
    with pytest.raises(KeyboardInterrupt):
        grid.pull_messages([])
    with pytest.raises(KeyboardInterrupt):
        grid.push_messages([])
