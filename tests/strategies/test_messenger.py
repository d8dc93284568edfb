"""What each client is sent, and what the server believes about it."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MessageType

from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.downlink import Kind
from fl_opt.exchange.incoming import Answer
from fl_opt.exchange.ledger import EPOCH, Ledger
from tests.strategies.peer import SIZE, SPEC, Peer, ask, move, new_messenger, read

NODE = 1001


def meta_in(message: Message) -> ConfigRecord:
    return records.find_meta(message.content)


def test_messages_say_all_that_a_client_must_know() -> None:
    messenger = new_messenger()
    config = ConfigRecord({"lr": 0.5})
    messages = messenger.open_round(3, [NODE, 1002], config, "train", evaluate=True)
    config["lr"] = 0.1  # Flower's loop does so in the next round
    message, kind = messages[0]
    meta = dict(meta_in(message))
    assert kind is Kind.SNAPSHOT
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (NODE, "3")
    assert message.content["config"] == ConfigRecord({"lr": 0.5})
    assert meta["model"] == SPEC.to_bytes()
    told = ("version", "update", "acknowledged", "keep", "participants", "evaluate", "spec")
    assert [meta[key] for key in told] == [
        *(0, EPOCH + 1, 0, True, 2, True),
        SPEC.fingerprint,
    ]


def test_the_description_is_sent_with_the_first_message_only() -> None:
    messenger, peer = new_messenger(first_contact="seed"), Peer(initial=True)
    (first,) = ask(messenger, NODE)
    assert "model" in meta_in(first)
    read(messenger, peer.answer(first))
    move(messenger)
    (second,) = ask(messenger, NODE)
    assert "model" not in meta_in(second)
    assert not read(messenger, peer.answer(second)).need


def test_an_evaluation_asks_for_no_update_and_closes_none() -> None:
    messenger, peer = new_messenger(), Peer()
    (question,) = ask(messenger, NODE)
    update = meta_in(question)["update"]
    reply = peer.answer(question)
    (look,) = ask(messenger, NODE, kind=MessageType.EVALUATE)
    assert meta_in(look)["update"] == 0
    read(messenger, peer.look(look))
    assert messenger.ledger.check(NODE, read(messenger, reply).update).issued == update


def test_a_client_that_is_up_to_date_is_sent_no_payload() -> None:
    messenger, peer = new_messenger(), Peer()
    read(messenger, peer.answer(ask(messenger, NODE)[0]))
    for kind in ("train", "evaluate"):
        (message,) = ask(messenger, NODE, kind=kind)
        assert not message.content.array_records
    assert not read(messenger, peer.look(message)).need


def test_what_an_older_reply_says_is_not_believed() -> None:
    """The client may have moved on since."""
    messenger, peer = new_messenger(), Peer()
    old = peer.answer(ask(messenger, NODE)[0])
    read(messenger, old)
    move(messenger)
    read(messenger, peer.answer(ask(messenger, NODE)[0]))
    held = messenger.ledger.of(NODE).held
    assert read(messenger, old).held != held
    assert messenger.ledger.of(NODE).held == held


class TestServedAgain:
    def test_from_the_seed_then_with_a_snapshot_then_no_more(self) -> None:
        messenger, peer = new_messenger(first_contact="seed"), Peer()
        read(messenger, Peer(initial=True).answer(ask(messenger, NODE)[0]))
        move(messenger)
        peer.initial = lambda: {"weight": np.ones(SIZE, np.float32)}  # another one
        (message,) = ask(messenger, NODE)
        kinds = []
        for _ in range(2):
            reply = peer.answer(message)
            answer = read(messenger, reply)
            assert answer.need
            message, kind = messenger.repeat(reply, answer)
            kinds.append(kind)
        assert kinds == [Kind.FROM_SEED, Kind.SNAPSHOT]
        last = peer.answer(message)
        assert not read(messenger, last).need
        with pytest.raises(ExchangeError, match="client cannot follow: this client holds"):
            messenger.repeat(last, Answer("", need="this client holds nothing"))

    def test_is_counted_by_round_and_client(self) -> None:
        messenger, peer = new_messenger(first_contact="seed"), Peer()
        for _ in range(3):
            messenger.ledger.of(NODE).seed = True
            (message,) = ask(messenger, NODE)
            peer.state.clear()
            answer = read(messenger, reply := peer.answer(message))
            assert messenger.repeat(reply, answer)[1] is Kind.SNAPSHOT

    def test_the_update_asked_for_first_can_no_longer_count(self) -> None:
        messenger, peer = new_messenger(first_contact="seed"), Peer()
        (message,) = ask(messenger, NODE)
        answer = read(messenger, reply := peer.answer(message))
        again, _ = messenger.repeat(reply, answer)
        assert meta_in(again)["update"] == meta_in(message)["update"] + 1  # type: ignore[operator]
        assert again.metadata.message_type == "train"

    def test_who_cannot_build_the_first_model_is_not_asked_to_again(self) -> None:
        messenger, peer = new_messenger(first_contact="seed"), Peer()
        read(messenger, peer.answer(ask(messenger, NODE)[0]))
        assert messenger.ledger.of(NODE).seed is False
        assert messenger.open_round(2, [NODE], ConfigRecord(), "train")[0][1] is Kind.SNAPSHOT


class TestBooks:
    def test_returned_and_lost_updates_are_counted(self) -> None:
        messenger, peer = new_messenger(), Peer()
        first = peer.answer(ask(messenger, NODE)[0])
        read(messenger, first)  # noted, but not taken: it returns
        answer = read(messenger, peer.answer(ask(messenger, NODE)[0]))
        assert answer.returned
        account = messenger.ledger.of(NODE)
        assert (account.returned, account.lost) == (1, 0)
        account.residual_norm = 2.5  # as if something had been left over
        messenger.ledger.take(NODE)
        messenger.ledger.accept(NODE)
        peer.state.clear()
        (message,) = ask(messenger, NODE)
        answer = read(messenger, reply := peer.answer(message))
        again, _ = messenger.repeat(reply, answer)
        assert read(messenger, peer.answer(again)).lost
        assert (account.returned, account.lost, account.norm_lost) == (1, 1, 2.5)
        assert account.residual_norm == 0.0

    def test_a_resumed_server_goes_on_above_all_earlier_ids(self) -> None:
        messenger, peer = new_messenger(), Peer()
        read(messenger, peer.answer(ask(messenger, NODE)[0]))
        saved = Ledger.from_values(messenger.ledger.to_values())
        state = messenger.downlink.state()
        ahead = [ask(messenger, NODE)[0] for _ in range(3)]
        read(messenger, peer.answer(ahead[-1]))  # of which the resumed one knows nothing
        other = new_messenger()
        other.resume(SPEC, saved, *state, with_clients=True)
        (message,) = ask(other, NODE)
        assert meta_in(message)["update"] == 2 * EPOCH + 1
        answer = read(other, peer.answer(message))
        assert not answer.need
        assert answer.returned
