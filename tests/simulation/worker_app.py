"""A client app for worker processes, which import it; and apps that these cannot use."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import NoReturn

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_opt.simulation.grid import FIRST_NODE_ID
from tests.simulation.apps import config_of, metrics_of, payload, payload_of, question

PATIENCE = 60.0  # seconds

app = ClientApp()


def order(node_id: int, what: str, server_round: int = 1, argument: str = "") -> Message:
    """A message that has a client do something."""
    message = question(node_id, ttl=500.0)
    message.metadata.group_id = str(server_round)
    message.content["order"] = ConfigRecord({"what": what, "argument": argument})
    return message


@app.train()
def train(message: Message, context: Context) -> Message:
    """Count the messages that are remembered, tell about the process, and follow the order."""
    past = context.state.metric_records.get("calls", MetricRecord({"n": 0}))
    count = int(past["n"]) + 1  # type: ignore[arg-type]
    context.state["calls"] = MetricRecord({"n": count})
    context.state["last"] = ArrayRecord({"payload": payload_of(message.content)})
    config_of(message.content)["list"] = [0]  # nobody else is to see this
    wanted = message.content.config_records["order"]
    _follow(str(wanted["what"]), str(wanted["argument"]), context.node_id)
    metrics = {
        "n": count,
        "num-examples": 10 * (context.node_id - FIRST_NODE_ID + 1),
        "process": float(os.getpid()),  # as long on its way for any id
        "threads": _threads() if wanted["what"] == "count-threads" else 0,
        "hears-ctrl-c": int(
            signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
        ),
        "is-child": int(multiprocessing.parent_process() is not None),
    }
    content = RecordDict(
        {
            "arrays": ArrayRecord({"payload": payload(bytes(90 + context.node_id % 7))}),
            "metrics": MetricRecord(metrics),  # type: ignore[arg-type]
        }
    )
    return Message(content, reply_to=message)


def said(reply: Message, key: str) -> int:
    """What a client told."""
    return int(metrics_of(reply.content)[key])  # type: ignore[arg-type]


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _follow(what: str, argument: str, node_id: int) -> None:
    if what == "raise":
        raise ZeroDivisionError("no data")
    if what == "die":
        os._exit(1)
    if what == "sleep":
        Path(argument).touch()
        time.sleep(PATIENCE)
    if what == "meet":
        _meet(Path(argument), node_id)


def _meet(folder: Path, node_id: int) -> None:
    """Wait until another client has come to the same folder."""
    (folder / str(node_id)).touch()
    deadline = time.monotonic() + PATIENCE
    while len(list(folder.iterdir())) < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody else came")
        time.sleep(0.01)


class Unloadable:
    """Can be pickled, and not read back."""

    def __reduce__(self) -> tuple[object, ...]:
        return _refuse, ()

    def __call__(self, message: Message, context: Context) -> NoReturn:
        raise NotImplementedError


def _refuse() -> NoReturn:
    raise LookupError("no such weights")
