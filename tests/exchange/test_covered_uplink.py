"""Updates of a part of the model: nothing is lost or counted twice, whatever the part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from numpy.typing import NDArray

from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.downlink.base import NOTHING
from fl_opt.exchange.downlink.full import FullDownlink
from fl_opt.exchange.feedback import build_feedback
from fl_opt.exchange.feedback.store import load_state
from fl_opt.exchange.incoming import Answer, UplinkUpdate, decode_update
from fl_opt.exchange.received import Received, receive
from fl_opt.exchange.rules import ReplyRules
from fl_opt.exchange.submodels import cut
from fl_opt.exchange.uplink import Turn, resend, settle
from fl_opt.params import ParamSpec
from tests.exchange.ends import as_content, meta_of

MODEL = {
    "hidden": np.random.default_rng(0).normal(0, 1, (8, 5)).astype(np.float32),
    "bias": np.zeros(8, np.float32),
    "output": np.random.default_rng(1).normal(0, 1, (3, 8)).astype(np.float32),
}
SPEC = ParamSpec.of(MODEL)
ROLLING = "rolling(0.5)"
ALIVE = Coverage.of(np.random.default_rng(2).random(SPEC.size) < 0.6)
MASKS = {"all": None, "pruned": ALIVE}


class Exchange:
    """A client and the server's end, message by message."""

    def __init__(self, rules: ReplyRules) -> None:
        self.rules = rules
        self.state = RecordDict()
        self.update = 0
        self.acknowledged = 0

    def message(self, alive: Coverage | None) -> tuple[bytes, dict[str, Any]]:
        self.update += 1
        downlink = FullDownlink("fp32")
        downlink.begin(SPEC, SPEC.flatten(MODEL), {})
        vector = SPEC.flatten(MODEL)
        if alive is not None:
            alive.clear_others(vector)
        downlink.advance(vector, {}, alive)
        delivery = downlink.serve(1, NOTHING, seed=False)
        meta = meta_of(
            SPEC,
            delivery,
            version=self.update,
            rules=self.rules,
            keep=False,
            update=self.update,
            acknowledged=self.acknowledged,
        )
        return delivery.payload, dict(meta)

    def turn(self, alive: Coverage | None, width: float) -> Turn:
        received: Received = receive(*self.message(alive), ClientState(), None)
        return settle(received, ClientState.load(self.state), self.state, width=width)

    def reply(self, turn: Turn, change: NDArray[np.float32]) -> tuple[UplinkUpdate, bytes]:
        """Have the client learn a change, of the whole model's size, and read its update."""
        start = turn.start_arrays()
        spec, own = (SPEC, change)
        if turn.part is not None:
            spec, own = turn.part.spec, turn.part.covers.gather(change)
        trained = spec.unflatten(spec.flatten(start) + own)
        payload, meta = turn.finish(trained, self.state, client_id=4)
        content = as_content(payload, meta)
        answer = Answer.of(content)
        assert answer.width == turn.width
        part = None
        if answer.width < 1.0:
            part = cut(SPEC, self.rules.submodels, answer.width, answer.version).covers
        alive = turn.received.reference.alive
        update = decode_update(
            content, answer, SPEC, version=self.update, alive=alive, part=part
        )
        return update, payload

    def kept(self, name: str) -> NDArray[np.float32]:
        found = load_state(self.state, build_feedback(self.rules.feedback), SPEC)
        return found.get(name, np.zeros(SPEC.size, np.float32))


def learned(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, SPEC.size).astype(np.float32)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("width", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("codec", ["topk(0.1) | ternary", "int4", "ecsq(1.0)", "powersgd(1)"])
@pytest.mark.parametrize("feedback", ["residual", "step_ahead(0.0)"])
def test_what_was_learned_is_applied_or_kept(
    feedback: str, codec: str, width: float, mask: str
) -> None:
    exchange = Exchange(ReplyRules(codec, feedback, seed=1, submodels=ROLLING))
    computed, applied = np.zeros(SPEC.size), np.zeros(SPEC.size)
    chance = np.random.default_rng(3)
    returned = 0
    for number in range(12):
        turn = exchange.turn(MASKS[mask], width)
        change = learned(number)
        update, _ = exchange.reply(turn, change)
        returned += turn.returned
        covers = turn.covers or Coverage.all_of(SPEC.size)
        computed += np.where(covers.mask, change, 0)
        dense = update.update.to_dense()
        assert not dense[~covers.mask].any()
        if chance.random() < 0.6:  # else it gets lost, and comes back
            applied += dense
            exchange.acknowledged = exchange.update
    turn = exchange.turn(MASKS[mask], width)  # settles the last one
    total = applied + np.asarray(dict(turn.kept).get("residual", 0.0))
    assert returned > 1
    np.testing.assert_allclose(total, computed, atol=2e-5)


def test_dgc_masks_what_it_sends_of_the_part_and_nothing_else() -> None:
    rules = ReplyRules("none", "dgc(momentum=0.5)", seed=1, submodels=ROLLING)
    exchange = Exchange(rules)
    first = exchange.turn(None, 0.5)
    exchange.reply(first, learned(1))
    exchange.acknowledged = exchange.update
    assert first.part is not None
    # A dense update delays nothing: velocity is zero, momentum goes on, as for the whole model.
    inside = first.part.covers.mask
    np.testing.assert_array_equal(exchange.kept("velocity")[inside], 0.0)
    np.testing.assert_allclose(
        exchange.kept("momentum"), np.where(inside, learned(1), 0), rtol=1e-5, atol=1e-6
    )
    second = exchange.turn(None, 0.5)
    exchange.reply(second, learned(2))
    assert second.part is not None
    outside = ~second.part.covers.mask
    assert (inside & outside).any()
    np.testing.assert_allclose(
        exchange.kept("momentum")[inside & outside], learned(1)[inside & outside], rtol=1e-5
    )


def test_nothing_is_kept_of_what_was_pruned() -> None:
    exchange = Exchange(ReplyRules("topk(0.1) | ternary", "residual", seed=1))
    exchange.reply(exchange.turn(None, 1.0), learned(1))
    assert np.count_nonzero(exchange.kept("residual")) > 0.8 * SPEC.size
    exchange.acknowledged = exchange.update
    exchange.reply(exchange.turn(ALIVE, 1.0), learned(2))
    residual = exchange.kept("residual")
    assert not residual[~ALIVE.mask].any()
    assert residual[ALIVE.mask].any()


def test_training_ahead_leaves_what_is_pruned_at_zero() -> None:
    exchange = Exchange(ReplyRules("topk(0.1) | ternary", "step_ahead(1.0)", seed=1))
    exchange.reply(exchange.turn(None, 1.0), learned(1))
    exchange.acknowledged = exchange.update
    start = SPEC.flatten(exchange.turn(ALIVE, 1.0).start_arrays())
    assert not start[~ALIVE.mask].any()
    ahead = SPEC.flatten(MODEL) + exchange.kept("residual")
    np.testing.assert_allclose(start[ALIVE.mask], ahead[ALIVE.mask], rtol=1e-6)


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_pruned_entries_cost_nothing(width: float) -> None:
    """A vector of what is left takes the bytes of a model that is so small."""
    exchange = Exchange(ReplyRules("none", "none", seed=1, submodels=ROLLING))
    _, whole = exchange.reply(exchange.turn(None, width), learned(1))
    turn = exchange.turn(ALIVE, width)
    _, pruned = exchange.reply(turn, learned(1))
    assert turn.covers is not None
    count = turn.part.covers.count if turn.part else SPEC.size
    assert 0 <= len(whole) - len(pruned) - 4 * (count - turn.covers.count) <= 2  # varints


def test_a_sub_model_is_smaller_arrays_of_the_same_names() -> None:
    exchange = Exchange(ReplyRules("none", "none", seed=1, submodels=ROLLING))
    turn = exchange.turn(None, 0.5)
    start = turn.start_arrays()
    units = [1, 2, 3, 4]  # version 1
    np.testing.assert_array_equal(start["hidden"], MODEL["hidden"][units])
    np.testing.assert_array_equal(start["bias"], MODEL["bias"][units])
    np.testing.assert_array_equal(start["output"], MODEL["output"][:, units])


def test_an_update_that_is_sent_again_says_its_width() -> None:
    exchange = Exchange(ReplyRules("none", "none", seed=1, submodels=ROLLING))
    _, payload = exchange.reply(exchange.turn(None, 0.5), learned(1))
    exchange.update -= 1
    _, meta = exchange.message(None)
    again = resend(meta, ClientState.load(exchange.state))
    assert again is not None
    assert again[0] == payload
    assert again[1]["width"] == 0.5


def test_ordinary_messages_say_nothing_of_parts() -> None:
    exchange = Exchange(ReplyRules("none", "residual", seed=1))
    _, meta = exchange.message(None)
    assert "submodels" not in meta
    turn = exchange.turn(None, 1.0)
    _, beside = turn.finish(turn.start_arrays(), exchange.state, client_id=1)
    assert "width" not in beside
    assert set(exchange.state["fl-opt.exchange"]) == {
        *("model", "update", "payload", "acknowledged")
    }
