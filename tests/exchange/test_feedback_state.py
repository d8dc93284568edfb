"""Feedback in the exchange: what a client keeps, from one message to the next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fl_opt.client.session import train_round
from fl_opt.errors import CodecError, ConfigError, ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.blob import decode_blob
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.feedback import FEEDBACKS, Dgc, Residual, StepAhead, build_feedback
from fl_opt.exchange.feedback.store import KEY, load_state, store_state
from fl_opt.exchange.received import Received
from fl_opt.exchange.rules import ReplyRules
from fl_opt.exchange.uplink import settle
from fl_opt.params import NamedArrays, ParamSpec
from tests.exchange.ends import answer_to, as_content, received_model, whole_model

Vector = NDArray[np.float32]
MODEL: dict[str, NDArray[np.generic]] = {
    "weight": np.linspace(-1, 1, 30).reshape(3, 10).astype(np.float32),
    "bias": np.zeros(2, np.float32),
    "steps": np.array(3),
}
SPEC = ParamSpec.of(MODEL)
SPECS = ("residual", "residual(0.5)", "step_ahead(0.5)", "dgc(0.9)", "dgc(0.9, clip=0.25)")
CODEC = "topk(0.1) | ternary"

vectors = arrays(np.float32, SPEC.size, elements=st.floats(-(2.0**100), 2.0**100, width=32))


class Rounds:
    """A client's rounds; the server accepts what it has sent."""

    def __init__(self, feedback: str, participants: int = 0) -> None:
        self.rules = ReplyRules(CODEC, feedback, seed=1, participants=participants)
        self.state = RecordDict()
        self.turns = 0

    def receive(self, model: NamedArrays = MODEL) -> Received:
        """The model, with the next question."""
        self.turns += 1
        update, accepted = self.turns, self.turns - 1
        return received_model(model, self.rules, update=update, acknowledged=accepted)

    def start(self, received: Received) -> dict[str, NDArray[np.generic]]:
        """What the client starts from."""
        return settle(received, ClientState.load(self.state), self.state).start_arrays()

    def answer(self, received: Received, after: NamedArrays, *, client_id: int = 3) -> bytes:
        """What it sends."""
        content = answer_to(received, after, self.state, client_id=client_id)
        return records.find_payload(content)


def message(feedback: str, turn: int, **rules: Any) -> RecordDict:
    """The message of a turn, all before it accepted."""
    told = ReplyRules(CODEC, feedback, seed=1, **rules)
    return as_content(*whole_model(MODEL, told, update=turn, acknowledged=turn - 1))


def learn(
    arrays_: NamedArrays, seed: int, scale: float = 0.01
) -> dict[str, NDArray[np.generic]]:
    generator = np.random.default_rng(seed)
    return {
        name: array + generator.normal(0, scale, array.shape).astype(np.float32)
        if array.dtype == np.float32
        else array + 1
        for name, array in arrays_.items()
    }


def transported(state: RecordDict) -> RecordDict:
    """The state as it comes back from another process."""
    return recorddict_from_proto(recorddict_to_proto(state))


def as_bytes(state: RecordDict) -> dict[str, list[bytes]]:
    return {
        key: [array.data for array in record.values()]
        for key, record in state.array_records.items()
    }


def test_the_examples_cover_every_kind_that_keeps_something() -> None:
    covered = {build_feedback(spec).name for spec in SPECS} | {"none"}
    assert covered == set(FEEDBACKS)


# --- the store


@given(vectors, vectors)
def test_state_survives_serialisation(momentum: Vector, velocity: Vector) -> None:
    state = RecordDict()
    store_state(state, {"momentum": momentum, "velocity": velocity}, SPEC)
    restored = load_state(transported(state), Dgc(), SPEC)
    assert list(restored) == ["momentum", "velocity"]
    np.testing.assert_array_equal(restored["momentum"], momentum)
    np.testing.assert_array_equal(restored["velocity"], velocity)
    assert not any(vector.flags.writeable for vector in restored.values())


def test_what_is_stored_does_not_change_with_the_vector() -> None:
    state, vector = RecordDict(), np.ones(SPEC.size, np.float32)
    store_state(state, {"residual": vector}, SPEC)
    vector += 1
    np.testing.assert_array_equal(load_state(state, Residual(), SPEC)["residual"], 1.0)


def test_other_records_of_the_app_are_left_alone() -> None:
    state = RecordDict({"mine": ConfigRecord({"n": 1})})
    store_state(state, {"residual": np.ones(SPEC.size, np.float32)}, SPEC)
    store_state(state, {}, SPEC)
    assert dict(state) == {"mine": ConfigRecord({"n": 1})}


def test_state_of_another_model_or_kind_is_dropped() -> None:
    state = RecordDict()
    store_state(state, {"residual": np.ones(SPEC.size, np.float32)}, SPEC)
    larger = ParamSpec.of({**MODEL, "more": np.zeros(1, np.float32)})
    renamed = ParamSpec.of({**MODEL, "weight": MODEL["weight"].reshape(10, 3)})
    assert renamed.size == SPEC.size
    assert load_state(state, Residual(), larger) == {}
    assert load_state(state, Residual(), renamed) == {}
    assert load_state(state, Dgc(), SPEC) == {}
    assert load_state(RecordDict(), Residual(), SPEC) == {}


def test_kinds_that_keep_the_same_take_over_from_each_other() -> None:
    state = RecordDict()
    store_state(state, {"residual": np.ones(SPEC.size, np.float32)}, SPEC)
    for feedback in (Residual(0.5), StepAhead(0.1)):
        np.testing.assert_array_equal(load_state(state, feedback, SPEC)["residual"], 1.0)


@pytest.mark.parametrize(
    "array",
    [
        Array("float32", (SPEC.size - 1,), "fl_opt.vector/1", bytes(4 * SPEC.size - 4)),
        Array("float32", (SPEC.size,), "fl_opt.vector/1", bytes(4 * SPEC.size - 4)),
        Array("float32", (SPEC.size,), "numpy.ndarray", bytes(4 * SPEC.size)),
    ],
)
def test_a_state_that_is_not_as_we_write_it_is_dropped(array: Array) -> None:
    state = RecordDict()
    store_state(state, {"residual": np.ones(SPEC.size, np.float32)}, SPEC)
    state[KEY] = ArrayRecord({"residual": array})
    assert load_state(state, Residual(), SPEC) == {}


# --- rounds


@pytest.mark.parametrize("spec", SPECS)
def test_replies_are_those_of_the_pure_functions(spec: str) -> None:
    """The exchange adds nothing of its own, over rounds and through serialised state."""
    feedback, client = build_feedback(spec), Rounds(spec, participants=4)
    expected: dict[str, Vector] = {}
    for turn in range(4):
        received = client.receive()
        start = feedback.start(received.reference.vector, expected)
        named = client.start(received)
        np.testing.assert_array_equal(SPEC.flatten(named), start)
        after = learn(named, seed=turn)
        sent, exact = decode_blob(client.answer(received, after), SPEC)
        assert exact["steps"] == 4
        vector, moved = feedback.before(SPEC.flatten(after) - start, expected, participants=4)
        np.testing.assert_array_equal(
            sent.positions,  # type: ignore[attr-defined]
            np.sort(np.argsort(-np.abs(vector), kind="stable")[: sent.count]),
        )
        expected = dict(feedback.after(vector, sent, moved))
        client.state = transported(client.state)
        found = load_state(client.state, feedback, SPEC)
        assert set(found) == set(expected)
        for name, vector in expected.items():
            np.testing.assert_array_equal(found[name], vector)


@pytest.mark.parametrize("spec", ["residual", "step_ahead(0.5)", "step_ahead(1)"])
def test_mass_is_conserved_through_the_exchange(spec: str) -> None:
    client = Rounds(spec)
    applied, learned = np.zeros(SPEC.size), np.zeros(SPEC.size)
    for turn in range(20):
        received = client.receive()
        before = client.start(received)
        start = SPEC.flatten(before).astype(np.float64)
        after = learn(before, seed=turn)
        decode_blob(client.answer(received, after), SPEC)[0].add_to(applied)
        learned += SPEC.flatten(after) - start
    residual = load_state(client.state, build_feedback(spec), SPEC)["residual"]
    np.testing.assert_allclose(applied + residual, learned, atol=2e-6)
    assert np.abs(residual).max() > 0.01


@pytest.mark.parametrize("spec", ["residual", "step_ahead(0.5)", "step_ahead(1)"])
def test_mass_is_conserved_when_every_other_update_is_lost(spec: str) -> None:
    """What the server has not accepted goes back, and comes with a later update."""
    client, accepted = Rounds(spec), 0
    applied, learned = np.zeros(SPEC.size), np.zeros(SPEC.size)
    for turn in range(1, 21):
        received = received_model(MODEL, client.rules, update=turn, acknowledged=accepted)
        before = client.start(received)
        start = SPEC.flatten(before).astype(np.float64)
        after = learn(before, seed=turn)
        sent, _ = decode_blob(client.answer(received, after), SPEC)
        learned += SPEC.flatten(after) - start
        if turn % 2 == 0:
            accepted = turn
            sent.add_to(applied)
        client.state = transported(client.state)
    residual = load_state(client.state, build_feedback(spec), SPEC)["residual"]
    np.testing.assert_allclose(applied + residual, learned, atol=4e-6)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_failed_encode_leaves_the_state_untouched(spec: str, bad: float) -> None:
    client = Rounds(spec)
    for turn in range(2):
        received = client.receive()
        client.answer(received, learn(client.start(received), seed=turn))
    before, exchange = as_bytes(client.state), client.state["fl-opt.exchange"].copy()
    assert before
    received = client.receive()
    broken = learn(client.start(received), seed=9)
    broken["bias"] = np.array([0.0, bad], np.float32)
    with pytest.raises(CodecError, match=f"array 'bias' holds {bad}"):
        client.answer(received, broken)
    assert as_bytes(client.state) == before
    assert client.state["fl-opt.exchange"] == exchange


@pytest.mark.parametrize("accepted", [True, False])
def test_state_of_another_model_takes_no_part_in_a_round(accepted: bool) -> None:
    """Neither the residual nor an update that was not accepted."""
    client, fresh = Rounds("residual"), Rounds("residual")
    client.answer(client.receive(), learn(MODEL, 0))
    other = {**MODEL, "weight": MODEL["weight"].reshape(10, 3)}
    after = learn(other, 1)
    rules, known = client.rules, int(accepted)
    received = received_model(other, rules, update=2, acknowledged=known)
    with_state = client.answer(received, after)
    anew = received_model(other, rules, update=2)
    assert with_state == fresh.answer(anew, after)
    assert as_bytes(client.state) == as_bytes(fresh.state)


# --- messages


def make_context() -> Context:
    return Context(1, 99, {"partition-id": 0, "num-partitions": 2}, RecordDict(), {})


def round_of(content: RecordDict, context: Context, seen: list[Vector]) -> Vector:
    """Run one round of a client; returns what the server receives."""

    def train(named: NamedArrays) -> NamedArrays:
        seen.append(SPEC.flatten(named))
        return learn(named, seed=len(seen))

    outcome = train_round(
        records.find_payload(content), records.find_meta(content), context, train
    )
    return decode_blob(outcome.payload, SPEC)[0].to_dense()


def test_training_starts_ahead_of_the_reference() -> None:
    context, seen = make_context(), list[Vector]()
    round_of(message("step_ahead(0.5)", 1), context, seen)
    residual = load_state(context.state, StepAhead(), SPEC)["residual"].copy()
    round_of(message("step_ahead(0.5)", 2), context, seen)
    reference = SPEC.flatten(MODEL)
    np.testing.assert_array_equal(seen[0], reference)
    np.testing.assert_array_equal(seen[1], residual * np.float32(0.5) + reference)


@pytest.mark.parametrize("spec", ["none", "residual", "dgc"])
def test_training_starts_from_the_reference(spec: str) -> None:
    context, seen = make_context(), list[Vector]()
    for turn in (1, 2):
        round_of(message(spec, turn), context, seen)
    np.testing.assert_array_equal(seen, [SPEC.flatten(MODEL)] * 2)


def test_the_number_of_participants_reaches_the_client() -> None:
    sent: list[float] = []
    for participants in (1, 4, 16):
        told = message("dgc(0.9, clip=0.001)", 1, participants=participants)
        sent.append(float(np.abs(round_of(told, make_context(), [])).max()))
    np.testing.assert_allclose(np.array(sent) / sent[0], [1, 2, 4], rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "value", "error", "reason"),
    [
        ("feedback", True, ExchangeError, "'feedback' = True is not str"),
        (
            "feedback",
            "karma",
            ConfigError,
            "unknown feedback 'karma'; known are none, residual",
        ),
        ("participants", 2.0, ExchangeError, "'participants' = 2.0 is not int"),
        ("participants", -1, ExchangeError, "participants = -1 is negative"),
        ("evaluate", 1, ExchangeError, "'evaluate' = 1 is not bool"),
        ("codec", "topk(2)", ConfigError, "density = 2"),
    ],
)
def test_messages_that_ask_for_nonsense_are_refused(
    key: str, value: records.MetaValue, error: type[Exception], reason: str
) -> None:
    content, context = message("residual", 1), make_context()
    content.config_records["fl-opt"][key] = value
    with pytest.raises(error, match=reason):
        round_of(content, context, [])
    assert not context.state
