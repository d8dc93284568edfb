"""A server that averages under one of two strategies, and notes when what happened."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fl_opt.simulation.proxy import GridProxy
from strategies import CompressedFedAvg

LAYERS = ((784, 800), (800,), (800, 400), (400,), (400, 10), (10,))
"""Shapes of an MLP's arrays: 952,410 parameters."""

app = ServerApp()


class WatchedGrid(GridProxy):
    """Notes when messages were sent and when their replies were there."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self.messages: dict[str, dict[str, Any]] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Push them."""
        asked = list(messages)
        began = time.time()
        keys = list(self.inner.push_messages(asked))
        self._note_sent(asked, began)
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Pull what there is."""
        replies = list(self.inner.pull_messages(message_ids))
        self._note_replies(replies)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send and receive as the inner grid does."""
        asked = list(messages)
        began = time.time()
        replies = list(self.inner.send_and_receive(asked, timeout=timeout))
        self._note_sent(asked, began)
        self._note_replies(replies)
        return replies

    def _note_sent(self, messages: Iterable[Message], moment: float) -> None:
        for message in messages:
            self.messages[message.metadata.message_id] = {"sent": moment}

    def _note_replies(self, replies: Iterable[Message]) -> None:
        for reply in replies:
            if reply.has_error():
                raise RuntimeError(f"a client failed: {reply.error.reason}")
            row = self.messages[reply.metadata.reply_to_message_id]
            row |= {"reply": reply.metadata.message_id, "seen": time.time()}
            for record in reply.content.metric_records.values():
                row |= {key: v for key, v in record.items() if key in ("started", "entered")}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and write down when they ended."""
    config = context.run_config
    watched = WatchedGrid(grid)
    ends: list[float] = []

    def note_end(_round: int, _arrays: ArrayRecord) -> MetricRecord:
        ends.append(time.time())
        return MetricRecord({"loss": 1.0})

    strategy: FedAvg = FedAvg(min_available_nodes=2)
    if config["strategy"] == "compressed":
        strategy = CompressedFedAvg(min_available_nodes=2, evaluate_mode="piggyback")
    strategy.start(
        watched,
        ArrayRecord([np.zeros(shape, np.float32) for shape in LAYERS]),
        num_rounds=int(config["num-server-rounds"]),
        timeout=60.0,
        evaluate_fn=note_end,
    )
    seen = {"ends": ends, "messages": watched.messages}
    Path(str(config["output"])).write_text(json.dumps(seen))
