"""Updates of a round: each counts once, late ones count less, refused ones return."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord

from fl_opt.errors import ExchangeError, PayloadError
from fl_opt.exchange import records
from fl_opt.exchange.incoming import Answer
from fl_opt.exchange.ledger import NotOpenError
from strategies.collection import Collection
from strategies.messenger import Messenger
from strategies.staleness import build_staleness
from tests.strategies.peer import SIZE, SPEC, Peer, ask, move, new_messenger, read

A, B = 1001, 1002


def collection(messenger: Messenger) -> Collection:
    staleness = build_staleness("polynomial(0.5)")
    return Collection(
        SPEC, messenger, "num-examples", lambda _, missed: staleness.weight(missed)
    )


def take(taken: Collection, reply: Message) -> tuple[int, int]:
    found = taken.take(reply, Answer.of(reply.content))
    return found.num_examples, found.staleness


def test_updates_are_weighted_by_examples() -> None:
    messenger = new_messenger()
    first, second = ask(messenger, A, B)
    taken = collection(messenger)
    assert take(taken, Peer(A).answer(first, learned=0.5, examples=3)) == (3, 0)
    assert take(taken, Peer(B).answer(second, learned=-0.5, examples=1)) == (1, 0)
    assert len(taken) == 2
    mean, exact = taken.total.mean()
    np.testing.assert_allclose(mean, np.full(SIZE, 0.25), atol=1e-6)
    assert exact == {}


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_a_late_update_counts_less(staleness: int) -> None:
    messenger = new_messenger()
    late, fresh = ask(messenger, A, B)
    reply = Peer(A).answer(late, learned=1.0)
    for _ in range(staleness):
        move(messenger)
    taken = collection(messenger)
    assert take(taken, reply) == (3, staleness)
    (fresh,) = ask(messenger, B)
    take(taken, Peer(B).answer(fresh, learned=0.0))
    weight = (1 + staleness) ** -0.5
    mean, _ = taken.total.mean()
    np.testing.assert_allclose(mean, np.full(SIZE, weight / 2), rtol=1e-5)


def test_a_duplicate_is_added_once() -> None:
    messenger = new_messenger()
    reply = Peer(A).answer(ask(messenger, A)[0])
    taken = collection(messenger)
    take(taken, reply)
    for _ in range(2):
        with pytest.raises(NotOpenError, match="has been applied already"):
            take(taken, reply)
        taken.commit()
    assert len(taken) == 1
    np.testing.assert_allclose(taken.total.mean()[0], np.full(SIZE, 0.5), atol=1e-6)


def test_what_is_committed_is_acknowledged_and_what_is_released_returns() -> None:
    for committed in (True, False):
        messenger, peer = new_messenger(), Peer(A)
        reply = peer.answer(ask(messenger, A)[0])
        read(messenger, reply)
        taken = collection(messenger)
        take(taken, reply)
        if committed:
            taken.commit()
        else:
            taken.release()
        (question,) = ask(messenger, A)
        known = messenger.ledger.of(A).issued - 1
        meta = records.find_meta(question.content)
        assert meta["acknowledged"] == (known if committed else 0)
        assert read(messenger, peer.answer(question)).returned is not committed


def test_a_late_update_that_is_refused_returns_to_its_client() -> None:
    messenger, peer = new_messenger(), Peer(A)
    reply = peer.answer(ask(messenger, A)[0], learned=0.5)
    messenger.ledger.close_all()
    taken = collection(messenger)
    with pytest.raises(NotOpenError, match="came too late"):
        take(taken, reply)
    again = peer.answer(ask(messenger, A)[0], learned=0.25)
    assert read(messenger, again).returned
    take(taken, again)
    np.testing.assert_allclose(taken.total.mean()[0], np.full(SIZE, 0.75), atol=1e-6)


def test_an_update_that_its_client_relies_on_cannot_be_released(
    caplog: pytest.LogCaptureFixture,
) -> None:
    messenger, peer = new_messenger(), Peer(A)
    taken = collection(messenger)
    take(taken, peer.answer(ask(messenger, A)[0]))
    ask(messenger, A)  # tells the client that it counts
    with caplog.at_level(logging.WARNING):
        taken.release()
    assert f"the last update of node {A} is lost" in caplog.text


class TestRefusals:
    """Nothing of a reply that is not exactly right is added, and a good one may follow."""

    @pytest.fixture
    def messenger(self) -> Messenger:
        return new_messenger()

    def check(self, messenger: Messenger, reply: Message, error: type[Exception]) -> None:
        taken = collection(messenger)
        with pytest.raises(error):
            take(taken, reply)
        assert len(taken) == 0
        assert (taken.metrics, taken.evaluations) == ([], [])
        assert messenger.ledger.of(A).open

    def test_a_metric_of_another_kind_than_the_others(self, messenger: Messenger) -> None:
        first, second = ask(messenger, A, B)
        taken = collection(messenger)
        take(taken, Peer(A).answer(first, loss=1.0, seen=[1, 2]))
        wrongs: tuple[dict[str, Any], ...] = (
            {"loss": [1.0], "seen": [1, 2]},
            {"loss": 1.0, "seen": [1]},
        )
        for wrong in wrongs:
            with pytest.raises(ExchangeError, match="cannot be averaged with"):
                take(taken, Peer(B).answer(second, **wrong))
        take(taken, Peer(B).answer(second, seen=[3, 4], other=1.0))
        assert len(taken) == 2

    def test_damaged_payload(self, messenger: Messenger) -> None:
        reply = Peer(A).answer(ask(messenger, A)[0])
        payload = bytearray(records.find_payload(reply.content))
        payload[-1] ^= 1
        reply.content[records.ARRAYS] = records.pack_payload(bytes(payload))
        self.check(messenger, reply, PayloadError)

    @pytest.mark.parametrize(("key", "value"), [("version", 1), ("spec", "0123456789abcdef")])
    def test_another_version_or_model(
        self, messenger: Messenger, key: str, value: int | str
    ) -> None:
        reply = Peer(A).answer(ask(messenger, A)[0])
        reply.content.config_records[records.META][key] = value
        self.check(messenger, reply, ExchangeError)

    @pytest.mark.parametrize("examples", [0, -1, 10**12])
    def test_weights_out_of_range(self, messenger: Messenger, examples: int) -> None:
        reply = Peer(A).answer(ask(messenger, A)[0], examples=examples)
        self.check(messenger, reply, ExchangeError)

    def test_metrics_that_are_not_finite(self, messenger: Messenger) -> None:
        reply = Peer(A).answer(ask(messenger, A)[0], loss=float("nan"))
        self.check(messenger, reply, ExchangeError)

    @pytest.mark.parametrize(
        "metrics", [{"num-examples": 3, "loss": float("inf")}, {"loss": 1.0}]
    )
    def test_an_evaluation_that_makes_no_sense(
        self, messenger: Messenger, metrics: dict[str, float]
    ) -> None:
        reply = Peer(A).answer(ask(messenger, A)[0])
        reply.content[records.EVALUATION] = MetricRecord(dict(metrics))
        self.check(messenger, reply, ExchangeError)


def test_evaluations_are_collected_beside_the_metrics_of_training() -> None:
    messenger = new_messenger()
    taken = collection(messenger)
    for node_id, examples in ((A, 3), (B, 0)):
        reply = Peer(node_id).answer(ask(messenger, node_id)[0])
        found = MetricRecord({"num-examples": examples, "loss": 0.5})
        reply.content[records.EVALUATION] = found
        take(taken, reply)
    assert len(taken.metrics) == 2
    assert len(taken.evaluations) == 1  # one had nothing to evaluate on
    assert [list(content) for content in taken.metrics] == [["metrics"]] * 2
