"""Compression for Message-based ClientApps: one mod."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.clientapp.typing import ClientAppCallable, Mod
from numpy.typing import NDArray

from fl_opt.client.last_metrics import keep_metrics, kept_metrics
from fl_opt.client.order import refuse_outer_mods
from fl_opt.client.session import EvaluateFn, Outcome, evaluate_round, train_round
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.received import InitialFn
from fl_opt.params import NamedArrays

InitialArraysFn = Callable[[Context], ArrayRecord]


def compression_mod(
    initial: InitialArraysFn | None = None, evaluate: ClientAppCallable | None = None
) -> Mod:
    """Return a mod that gives an app plain arrays and sends its update coded.

    Training and evaluation messages reach the app with the arrays of the model in place of
    the payload; a training reply's arrays are replaced by the coded update. Put it first
    among the mods, so that those that change the update (differential privacy, clipping)
    do so before it is coded; Flower's own are refused before it.

    Parameters
    ----------
    initial : callable, optional
        Takes the context and returns the arrays of the model that the server begins with. With
        it the first message carries no model.
    evaluate : callable, optional
        The app's function for evaluation messages. It is called before training where the
        server wants metrics with the update (``evaluate.mode = "piggyback"``). Without it such
        replies carry none, as Flower gives a mod nothing but the function that trains.

    Examples
    --------
    ::

        app = ClientApp(mods=[compression_mod(evaluate=evaluate)])
    """

    def compress(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        build: InitialFn | None = None
        if initial is not None:
            build = lambda: records.unpack_arrays(initial(context))  # noqa: E731
        category = message.metadata.message_type.partition(".")[0]
        if category == MessageType.TRAIN:
            refuse_outer_mods()
        try:
            if category == MessageType.TRAIN:
                return _train(message, context, call_next, build, evaluate)
            if category == MessageType.EVALUATE:
                return _evaluate(message, context, call_next, build)
        except _AppReportedError as error:
            return error.reply
        return call_next(message, context)

    return compress


def _train(
    message: Message,
    context: Context,
    call_next: ClientAppCallable,
    initial: InitialFn | None,
    evaluate: ClientAppCallable | None,
) -> Message:
    content = message.content
    replies: list[Message] = []

    def train(arrays: dict[str, NDArray[Any]]) -> NamedArrays:
        message.content = _with_arrays(content, arrays)
        replies.append(_answered(call_next(message, context)))
        return _reply_arrays(replies[0].content)

    outcome = train_round(
        records.find_payload(content, optional=True),
        records.find_meta(content),
        context,
        train,
        initial=initial,
        evaluate=_evaluation(evaluate, message, context) if evaluate else None,
    )
    if outcome.done:
        keep_metrics(context.state, replies[0].content.metric_records)
    elif outcome.payload:  # sent once more, without asking the app again
        replies.append(Message(RecordDict({**kept_metrics(context.state)}), reply_to=message))
    return _reply(message, replies, outcome)


def _evaluation(evaluate: ClientAppCallable, message: Message, context: Context) -> EvaluateFn:
    """Return what asks the app to evaluate, in the middle of a training message."""
    content = message.content

    def ask(arrays: dict[str, NDArray[Any]]) -> Mapping[str, float]:
        metadata = copy.copy(message.metadata)
        metadata.message_type = MessageType.EVALUATE
        question = make_message(metadata=metadata, content=_with_arrays(content, arrays))
        return _metrics(_answered(evaluate(question, context)).content)

    return ask


def _evaluate(
    message: Message, context: Context, call_next: ClientAppCallable, initial: InitialFn | None
) -> Message:
    content = message.content
    replies: list[Message] = []

    def evaluate(arrays: dict[str, NDArray[Any]]) -> None:
        message.content = _with_arrays(content, arrays)
        replies.append(_answered(call_next(message, context)))

    outcome = evaluate_round(
        records.find_payload(content, optional=True),
        records.find_meta(content),
        context,
        evaluate,
        initial=initial,
    )
    return _reply(message, replies, outcome)


class _AppReportedError(Exception):
    """The app answered with an error of its own, which goes to the server as it is."""

    def __init__(self, reply: Message) -> None:
        super().__init__(reply.error.reason)
        self.reply = reply


def _answered(reply: Message) -> Message:
    if reply.has_error():
        raise _AppReportedError(reply)
    return reply


def _reply(message: Message, replies: list[Message], outcome: Outcome) -> Message:
    """Return the app's reply, its arrays replaced, or a new one if the app has not run."""
    reply = replies[0] if replies else Message(RecordDict(), reply_to=message)
    content = RecordDict(
        {
            key: record
            for key, record in reply.content.items()
            if not isinstance(record, ArrayRecord)
        }
    )
    content[records.META] = records.pack_meta(outcome.meta)
    if outcome.payload:
        content[records.ARRAYS] = records.pack_payload(outcome.payload)
    if outcome.evaluation is not None:
        content[records.EVALUATION] = MetricRecord(dict(outcome.evaluation))
    reply.content = content
    return reply


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


def _metrics(content: RecordDict) -> dict[str, float]:
    """Return the numbers of an evaluation; lists are left out."""
    return {
        key: value
        for record in content.metric_records.values()
        for key, value in record.items()
        if isinstance(value, (int, float))
    }
