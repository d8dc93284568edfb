"""Clients that write down what they knew, learned and sent, for each training message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from chaos_app.softmax import first_model, let_the_clock_jump, train, write
from fl_opt import compression_mod
from fl_opt.exchange import records
from fl_opt.exchange.blob import decode_blob
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.feedback import Residual
from fl_opt.exchange.feedback.store import load_state
from fl_opt.params import ParamSpec

SPEC = ParamSpec.of(first_model())


def _initial(_: Context) -> ArrayRecord:
    return records.pack_arrays(first_model())


_inner = ClientApp(mods=[compression_mod(_initial)])
_learned: list[tuple[NDArray[np.float32], int]] = []


@_inner.train()
def _train(message: Message, context: Context) -> Message:
    arrays = records.unpack_arrays(message.content.array_records[records.ARRAYS])
    node = context.node_config
    after, count = train(arrays, int(node["partition-id"]), int(node["num-partitions"]))
    _learned.append((SPEC.flatten(after) - SPEC.flatten(arrays), count))
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(array) for name, array in after.items()}),
            "metrics": MetricRecord({"num-examples": count}),
        }
    )
    return Message(content, reply_to=message)


app = ClientApp()


@app.train()
def audited(message: Message, context: Context) -> Message:
    """Handle a message, and write down the client's books before and after."""
    folder = Path(str(context.run_config["folder"]))
    let_the_clock_jump(folder)
    server_round = message.content.config_records["config"]["server-round"]
    before = _books(context.state, "before")
    _learned.clear()
    reply = _inner(message, context)
    delta, count = _learned[0] if _learned else (np.zeros(SPEC.size, np.float32), 0)
    meta: Mapping[str, Any] = reply.content.config_records.get(records.META, {})
    write(
        folder / "clients",
        f"{message.metadata.run_id}-{context.node_id}",
        **before,
        **_books(context.state, "after"),
        round=server_round,
        trained=bool(_learned),
        delta=delta,
        num_examples=count,
        returned=bool(meta.get("returned", False)),
    )
    return reply


def _books(state: RecordDict, when: str) -> dict[str, Any]:
    """Return the residual, the update sent last and what is known of it."""
    known = ClientState.load(state)
    residual = load_state(state, Residual(), SPEC).get("residual")
    sent = np.zeros(SPEC.size, np.float32)
    if known.payload:
        sent = decode_blob(known.payload, SPEC)[0].to_dense()
    return {
        f"{when}_update": known.update,
        f"{when}_acknowledged": known.acknowledged,
        f"{when}_residual": np.zeros(SPEC.size, np.float32) if residual is None else residual,
        f"{when}_sent": sent,
    }
