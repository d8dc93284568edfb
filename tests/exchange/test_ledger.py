"""Updates count at most once, and never after a client has been told otherwise."""

from __future__ import annotations

import json

import pytest

from fl_opt.exchange.ledger import EPOCH, Account, Ledger, NotOpenError

A, B = 1001, 1002


def test_ids_rise_within_an_epoch_and_above_all_earlier_ones_in_the_next() -> None:
    ledger = Ledger()
    first = [ledger.issue(A, 0) for _ in range(3)]
    assert first == [EPOCH + 1, EPOCH + 2, EPOCH + 3]
    assert ledger.issue(B, 0) == EPOCH + 1
    ledger.epoch += 1
    assert ledger.issue(A, 0) == 2 * EPOCH + 1 > max(first)


def test_an_update_is_taken_once() -> None:
    ledger = Ledger()
    update = ledger.issue(A, 7)
    assert ledger.check(A, update).version == 7
    ledger.take(A)
    for accepted in (False, True):
        if accepted:
            ledger.accept(A)
        with pytest.raises(NotOpenError, match=f"{update} has been applied already"):
            ledger.check(A, update)
    assert (ledger.of(A).accepted, ledger.of(A).updates) == (update, 1)
    ledger.accept(A)  # nothing left to accept
    assert ledger.of(A).updates == 1


def test_an_update_of_another_node_was_not_asked_for() -> None:
    ledger = Ledger()
    update = ledger.issue(A, 0)
    for node_id, number in ((B, update), (A, update + 1), (A, 0), (A, -3)):
        with pytest.raises(NotOpenError, match="was not asked for"):
            ledger.check(node_id, number)


def test_asking_again_gives_up_on_what_was_open() -> None:
    ledger = Ledger()
    first = ledger.issue(A, 0)
    second = ledger.issue(A, 1)
    with pytest.raises(NotOpenError, match=f"{first} came too late"):
        ledger.check(A, first)
    assert ledger.check(A, second).version == 1
    assert ledger.of(A).accepted == 0  # so that the client takes the first one back


def test_asking_again_accepts_what_was_taken() -> None:
    """The message names it as accepted: it cannot be given back any more."""
    ledger = Ledger()
    first = ledger.issue(A, 0)
    ledger.take(A)
    ledger.issue(A, 0)
    assert ledger.of(A).accepted == first
    assert not ledger.release(A)


def test_a_released_update_is_not_accepted() -> None:
    ledger = Ledger()
    update = ledger.issue(A, 0)
    ledger.take(A)
    assert ledger.release(A)
    ledger.accept(A)
    assert (ledger.of(A).accepted, ledger.of(A).updates) == (0, 0)
    with pytest.raises(NotOpenError, match="came too late"):
        ledger.check(A, update)


def test_closing_refuses_what_is_open_and_keeps_what_is_taken() -> None:
    ledger = Ledger()
    first, second = ledger.issue(A, 0), ledger.issue(B, 0)
    ledger.take(A)
    ledger.close_all()
    with pytest.raises(NotOpenError, match="too late"):
        ledger.check(B, second)
    ledger.accept(A)
    assert ledger.of(A).accepted == first


def test_survives_a_checkpoint() -> None:
    ledger = Ledger()
    ledger.issue(A, 3)
    ledger.take(A)
    ledger.issue(B, 4)
    ledger.of(B).held, ledger.of(B).residual_norm = "0123456789abcdef", 0.25
    values = json.loads(json.dumps(ledger.to_values()))
    assert Ledger.from_values(values) == ledger
    with_more = {**values, "accounts": {"5": {**values["accounts"][str(B)], "later": 1}}}
    assert Ledger.from_values(with_more).of(5) == ledger.of(B)


def test_a_new_client_may_know_the_seed_and_holds_nothing() -> None:
    assert Ledger().of(A) == Account(held="", seed=True, issued=0, accepted=0)
