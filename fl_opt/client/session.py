"""One round on a client: decode the model, let the app train it, encode what it learned.

:class:`~fl_opt.client.CompressedNumPyClient` and :func:`~fl_opt.client.compression_mod` are
skins over this, for the two ways in which Flower apps are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flwr.app import ConfigRecord, Context
from numpy.typing import NDArray

from fl_opt.exchange.downlink import unpack_broadcast
from fl_opt.exchange.records import MetaValue
from fl_opt.exchange.uplink import encode_reply, reply_meta, start_arrays
from fl_opt.params import NamedArrays
from fl_opt.profiling.memory import peak_memory_bytes

TrainFn = Callable[[dict[str, NDArray[Any]]], NamedArrays]


def train_round(
    payload: bytes, meta: ConfigRecord, context: Context, train: TrainFn
) -> tuple[bytes, dict[str, MetaValue]]:
    """Answer a training message.

    Parameters
    ----------
    payload : bytes
        The coded model.
    meta : ConfigRecord
        What came beside it.
    context : Context
        The client's; what feedback remembers lives in its state.
    train : callable
        Takes the named arrays to start from (its own to change) and returns them trained.

    Returns
    -------
    payload : bytes
        The coded update.
    meta : dict
        What goes beside it: version, model fingerprint and what the round cost here
        (seconds, bytes of peak memory).

    Raises
    ------
    PayloadError, ExchangeError, ModelError, CodecError
        Nothing is kept in the state then.
    """
    received = unpack_broadcast(payload, meta)
    begin = time.perf_counter()
    trained = train(start_arrays(received, context.state))
    trained_at = time.perf_counter()
    reply = encode_reply(received, trained, context.state, client_id=client_identity(context))
    costs = {
        "train-seconds": trained_at - begin,
        "encode-seconds": time.perf_counter() - trained_at,
        "peak-memory-bytes": float(peak_memory_bytes()),
    }
    return reply, {**reply_meta(received), **costs}


def received_arrays(payload: bytes, meta: ConfigRecord) -> dict[str, NDArray[Any]]:
    """Decode the model of a message that asks for no update, such as an evaluation."""
    return unpack_broadcast(payload, meta).arrays()


def client_identity(context: Context) -> int:
    """Return a number that stays with a client: its partition if it has one, else its node."""
    partition = context.node_config.get("partition-id")
    return int(partition) if partition is not None else int(context.node_id)
