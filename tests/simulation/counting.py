"""An app that counts, and grids that may fail it."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from fl_opt.simulation.devices import Link, SteadyDevice
from fl_opt.simulation.faults import FaultPlan
from fl_opt.simulation.grid import FIRST_NODE_ID, VirtualGrid
from tests.simulation.apps import (
    client_app,
    config_of,
    metrics_of,
    payload,
    payload_of,
    question,
)

A, B = FIRST_NODE_ID, FIRST_NODE_ID + 1
DEVICE = SteadyDevice(Link(uplink_mbps=1.0, downlink_mbps=4.0, latency_seconds=0.1), 100.0)
TTL = 500.0


class Counting:
    """An app that counts the messages it remembers, and notes what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []
        self.payloads: list[bytes] = []
        self.numbers: list[object] = []

    def __call__(self, message: Message, context: Context) -> Message:
        past = context.state.metric_records.get("calls", MetricRecord({"n": 0}))
        count = MetricRecord({"n": int(past["n"]) + 1, "num-examples": 50})  # type: ignore[arg-type]
        context.state["calls"] = count
        self.seen.append((context.node_id, message.metadata.message_id))
        self.payloads.append(payload_of(message.content).data)
        self.numbers.append(config_of(message.content)["list"])
        arrays = ArrayRecord({"payload": payload(bytes(100))})
        return Message(RecordDict({"arrays": arrays, "metrics": count}), reply_to=message)


def grid_with(app: Counting, faults: FaultPlan | None, count: int = 3) -> VirtualGrid:
    return VirtualGrid(client_app(app), count, lambda _: DEVICE, faults=faults)


def ask(node_id: int, server_round: int | str = 1, ttl: float = TTL) -> Message:
    message = question(node_id, ttl=ttl)
    message.metadata.group_id = str(server_round)
    return message


def count_in(reply: Message) -> int | None:
    """How many messages the client remembered; None for an error."""
    return int(metrics_of(reply.content)["n"]) if reply.has_content() else None  # type: ignore[arg-type]


def pull_all(grid: VirtualGrid, keys: Iterable[str], until: float = TTL) -> list[Message]:
    """Everything that arrives up to a moment, in order."""
    wanted, replies = set(keys), []
    while True:
        replies += grid.pull_messages(wanted)
        if grid.clock.time() >= until:
            return replies
        grid.clock.sleep(until - grid.clock.time())


def all_faults(seed: int) -> FaultPlan:
    """Some of everything."""
    return FaultPlan(
        seed,
        lose_down=0.1,
        lose_up=0.1,
        duplicate_down=0.3,
        duplicate_up=0.3,
        delay=0.5,
        delay_seconds=3.0,
        restart=0.2,
        forget=0.2,
        slow=0.2,
        slow_factor=5.0,
        corrupt_down=0.1,
        corrupt_up=0.1,
    )
