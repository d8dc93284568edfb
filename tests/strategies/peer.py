"""A client of the toy kind beside a messenger, without a grid between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from numpy.typing import NDArray

from fl_opt.client.session import evaluate_round, train_round
from fl_opt.exchange import records
from fl_opt.exchange.downlink import DownlinkOptions, build_downlink
from fl_opt.exchange.incoming import Answer
from fl_opt.exchange.rules import ReplyRules
from fl_opt.params import ParamSpec
from fl_opt.simulation.identity import act_as_server
from strategies.messenger import Messenger

SIZE = 20
MODEL = {"weight": np.linspace(-1, 1, SIZE).astype(np.float32)}
SPEC = ParamSpec.of(MODEL)
RULES = ReplyRules("none", feedback="residual", seed=5)


def new_messenger(
    mode: str = "shared", first_contact: str = "snapshot", codec: str = "fp16"
) -> Messenger:
    """A messenger that has a model."""
    act_as_server()
    settings = DownlinkOptions(mode, codec, first_contact)
    messenger = Messenger(build_downlink(settings, seed=5), RULES)
    messenger.begin(SPEC, SPEC.flatten(MODEL), {})
    return messenger


def ask(messenger: Messenger, *nodes: int, kind: str = MessageType.TRAIN) -> list[Message]:
    """The messages of a round."""
    return [m for m, _ in messenger.open_round(1, nodes, ConfigRecord(), kind)]


def move(messenger: Messenger, by: float = 0.25) -> None:
    """Let the model take a step."""
    vector = SPEC.flatten(MODEL) + np.float32(by * (1 + messenger.version))
    messenger.downlink.advance(vector, {})


class Peer:
    """A client that adds a constant to the model and has three examples."""

    def __init__(self, node_id: int = 1001, *, initial: bool = False) -> None:
        self.node_id = node_id
        self.state = RecordDict()
        self.initial = (lambda: MODEL) if initial else None

    def answer(
        self, message: Message, *, learned: float = 0.5, examples: int = 3, **metrics: Any
    ) -> Message:
        """Its reply to a training message."""

        def train(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {"weight": arrays["weight"] + np.float32(learned)}

        content = message.content
        payload = records.find_payload(content, optional=True)
        context = Context(1, self.node_id, {}, self.state, {})
        meta = records.find_meta(content)
        outcome = train_round(payload, meta, context, train, initial=self.initial)
        reply = RecordDict({records.META: records.pack_meta(outcome.meta)})
        reply[records.METRICS] = MetricRecord({"num-examples": examples, **metrics})
        if outcome.payload:
            reply[records.ARRAYS] = records.pack_payload(outcome.payload)
        return Message(reply, reply_to=message)

    def look(self, message: Message) -> Message:
        """Its reply to an evaluation message."""
        content = message.content
        payload = records.find_payload(content, optional=True)
        context = Context(1, self.node_id, {}, self.state, {})
        outcome = evaluate_round(
            payload, records.find_meta(content), context, lambda _: None, initial=self.initial
        )
        return Message(
            RecordDict({records.META: records.pack_meta(outcome.meta)}), reply_to=message
        )


def read(messenger: Messenger, reply: Message) -> Answer:
    """Have the messenger take down a reply."""
    answer = Answer.of(reply.content)
    messenger.note(reply.metadata.src_node_id, answer)
    return answer
