"""Compression for Message-based ClientApps: one mod."""

from __future__ import annotations

from typing import Any

from flwr.app import ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod
from numpy.typing import NDArray

from fl_opt.client.session import received_arrays, train_round
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.params import NamedArrays


def compression_mod() -> Mod:
    """Return a mod that gives an app plain arrays and sends its update coded.

    Training and evaluation messages reach the app with the arrays of the model in place of
    the payload; a training reply's arrays are replaced by the coded update. Put it first
    among the mods, so that those that change the update (differential privacy, clipping)
    do so before it is coded.

    Examples
    --------
    ::

        app = ClientApp(mods=[compression_mod()])
    """
    return _compress


def _compress(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    category = message.metadata.message_type.partition(".")[0]
    if category == MessageType.TRAIN:
        return _train(message, context, call_next)
    if category == MessageType.EVALUATE:
        content = message.content
        arrays = received_arrays(records.find_payload(content), records.find_meta(content))
        message.content = _with_arrays(content, arrays)
    return call_next(message, context)


def _train(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    content = message.content
    replies: list[Message] = []

    def train(arrays: dict[str, NDArray[Any]]) -> NamedArrays:
        message.content = _with_arrays(content, arrays)
        reply = call_next(message, context)
        if reply.has_error():
            raise _AppReportedError(reply)
        replies.append(reply)
        return _reply_arrays(reply.content)

    try:
        payload, meta = train_round(
            records.find_payload(content), records.find_meta(content), context, train
        )
    except _AppReportedError as error:
        return error.reply
    reply = replies[0]
    kept = {
        key: record
        for key, record in reply.content.items()
        if not isinstance(record, ArrayRecord)
    }
    reply.content = RecordDict(
        {
            **kept,
            records.ARRAYS: records.pack_payload(payload),
            records.META: records.pack_meta(meta),
        }
    )
    return reply


class _AppReportedError(Exception):
    """The app answered with an error of its own, which goes to the server as it is."""

    def __init__(self, reply: Message) -> None:
        super().__init__(reply.error.reason)
        self.reply = reply


def _with_arrays(content: RecordDict, arrays: NamedArrays) -> RecordDict:
    """Return a copy of the content with plain arrays in place of the payload."""
    plain = {key: record for key, record in content.items() if key != records.META}
    plain[records.ARRAYS] = records.pack_arrays(arrays)
    return RecordDict(plain)


def _reply_arrays(content: RecordDict) -> NamedArrays:
    found = list(content.array_records.values())
    if len(found) != 1:
        raise ExchangeError(f"app returned {len(found)} ArrayRecords, exactly one is needed")
    return records.unpack_arrays(found[0])
