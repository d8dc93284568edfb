"""Server to client and back, without a network: models, updates, residuals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import build_codec
from fl_opt.errors import CodecError, ConfigError, ExchangeError, ModelError, PayloadError
from fl_opt.exchange import records
from fl_opt.exchange.blob import decode_blob, encode_blob
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.downlink.full import FullDownlink
from fl_opt.exchange.feedback import Residual
from fl_opt.exchange.feedback.store import load_state
from fl_opt.exchange.incoming import Answer
from fl_opt.exchange.rules import ReplyRules
from fl_opt.exchange.uplink import settle
from fl_opt.params import ParamSpec
from tests.exchange.ends import (
    RULES,
    answer_to,
    as_content,
    read_answer,
    received_model,
    whole_model,
)

MODEL: dict[str, NDArray[Any]] = {
    "weight": np.linspace(-1, 1, 60).reshape(6, 10).astype(np.float32),
    "bias": np.array(0.5, np.float64),
    "empty": np.zeros((0, 4), np.float32),
    "steps": np.array([3, 2**40]),
}
SPEC = ParamSpec.of(MODEL)


def residual_in(state: RecordDict, spec: ParamSpec = SPEC) -> NDArray[np.float32] | None:
    return load_state(state, Residual(), spec).get("residual")


def trained(step: float = 0.01, seed: int = 0) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    return {
        "weight": MODEL["weight"] + generator.normal(0, step, (6, 10)).astype(np.float32),
        "bias": MODEL["bias"] + step,
        "empty": MODEL["empty"],
        "steps": MODEL["steps"] + 1,
    }


# --- the model


@pytest.mark.parametrize("codec", ["fp32", "none", "bf16", "fp16"])
def test_a_client_receives_the_model(codec: str) -> None:
    received = received_model(MODEL, codec=codec)
    assert received.version == 4
    assert received.spec == SPEC
    arrays = received.arrays()
    for name, array in MODEL.items():
        assert arrays[name].dtype == array.dtype
        tolerance = 0.0 if codec in ("fp32", "none") else 4e-3
        np.testing.assert_allclose(arrays[name], array, atol=tolerance)


def test_a_model_with_negative_zeros_is_received() -> None:
    arrays = received_model({"a": np.array([-0.0, 1.0, -0.0], np.float32)}).arrays()
    assert arrays["a"].tolist() == [0.0, 1.0, 0.0]


def test_a_client_may_change_its_arrays_without_harm_to_the_reference() -> None:
    received = received_model(MODEL)
    for array in received.arrays().values():
        np.add(array, 1, out=array)
    again = received.arrays()
    np.testing.assert_array_equal(again["weight"], MODEL["weight"])
    np.testing.assert_array_equal(again["steps"], MODEL["steps"])


@pytest.mark.parametrize("codec", ["topk(0.5)", "int8", "stc", "ecsq(1.0)"])
def test_codecs_that_would_damage_a_whole_model_are_refused(codec: str) -> None:
    with pytest.raises(ConfigError, match="would damage the model"):
        FullDownlink(codec)


# --- the update


def test_server_gets_the_update_and_the_residual_holds_the_rest() -> None:
    state = RecordDict()
    carried, applied = np.zeros(SPEC.size), np.zeros(SPEC.size)
    for turn in range(5):
        received = received_model(MODEL, update=turn + 1, acknowledged=turn)
        after = trained(seed=turn)
        carried += SPEC.flatten(after) - received.reference.vector
        reply = read_answer(answer_to(received, after, state, client_id=3), SPEC)
        assert reply.update.count == 6
        reply.update.add_to(applied)
        residual = residual_in(state)
        assert residual is not None
        np.testing.assert_allclose(applied + residual, carried, atol=1e-6)
        np.testing.assert_array_equal(reply.exact["steps"], MODEL["steps"] + 1)


def test_what_was_not_acknowledged_returns_to_the_residual() -> None:
    state = RecordDict()
    answer_to(received_model(MODEL, update=1), trained(), state)
    kept = residual_in(state)
    lost, _ = decode_blob(ClientState.load(state).payload, SPEC)
    turn = settle(received_model(MODEL, update=2), ClientState.load(state), state)
    assert (turn.returned, turn.lost) == (True, False)
    assert kept is not None
    np.testing.assert_allclose(turn.kept["residual"], kept + lost.to_dense(), atol=1e-7)
    np.testing.assert_array_equal(residual_in(state), kept)  # until the turn is over

    accepted = received_model(MODEL, update=2, acknowledged=1)
    turn = settle(accepted, ClientState.load(state), state)
    assert (turn.returned, turn.lost) == (False, False)
    np.testing.assert_array_equal(turn.kept["residual"], kept)


def test_an_accepted_update_that_the_client_does_not_remember_empties_its_residual() -> None:
    state = RecordDict()
    answer_to(received_model(MODEL, update=1), trained(), state)
    received = received_model(MODEL, update=3, acknowledged=2)
    turn = settle(received, ClientState.load(state), state)
    assert (turn.kept, turn.returned, turn.lost) == ({}, False, True)
    _, meta = turn.finish(trained(), state, client_id=0)
    assert meta["lost"] is True


def test_without_feedback_no_residual_is_kept_and_an_old_one_is_dropped() -> None:
    state = RecordDict()
    answer_to(received_model(MODEL), trained(), state)
    assert residual_in(state) is not None
    rules = ReplyRules("stc", feedback="none", seed=1)
    content = answer_to(received_model(MODEL, rules, update=2), trained(), state)
    assert residual_in(state) is None
    assert list(state) == ["fl-opt.exchange"]
    answer = Answer.of(content)
    assert (answer.returned, answer.residual_norm) == (False, 0.0)


def test_the_reply_tells_the_norm_of_the_residual() -> None:
    state = RecordDict()
    answer = Answer.of(answer_to(received_model(MODEL), trained(), state))
    residual = residual_in(state)
    assert residual is not None
    assert answer.residual_norm == pytest.approx(float(np.linalg.norm(residual)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_names_the_array_and_keeps_the_state(bad: float) -> None:
    received, state = received_model(MODEL), RecordDict()
    answer_to(received, trained(), state)
    before = {key: record.copy() for key, record in state.items()}
    broken = trained()
    broken["bias"] = np.array(bad)
    with pytest.raises(CodecError, match=f"array 'bias' holds {bad}"):
        answer_to(received_model(MODEL, update=2), broken, state)
    assert dict(state) == before


def test_a_model_of_other_shape_is_refused() -> None:
    broken = {**trained(), "weight": np.zeros((5, 10), np.float32)}
    with pytest.raises(ModelError, match="'weight' has shape"):
        answer_to(received_model(MODEL), broken, RecordDict())


def test_randomness_of_replies_depends_on_client_and_version() -> None:
    rules = ReplyRules("uniform(2, 64, stochastic)", feedback="none", seed=1)
    payloads = {
        records.find_payload(
            answer_to(
                received_model(MODEL, rules, version=v), trained(), RecordDict(), client_id=c
            )
        )
        for v in (1, 2)
        for c in (0, 1)
        for _ in range(2)
    }
    assert len(payloads) == 4


def test_replies_of_another_model_or_version_are_refused() -> None:
    content = answer_to(received_model(MODEL), trained(), RecordDict())
    payload, meta = records.find_payload(content), dict(records.find_meta(content))
    del meta["protocol"]
    other = ParamSpec.of({**MODEL, "more": np.zeros(1, np.float32)})
    with pytest.raises(ExchangeError, match="another model"):
        read_answer(content, other)
    with pytest.raises(ExchangeError, match="version 4, expected 5"):
        read_answer(content, SPEC, version=5)
    for key, value, kind in (("version", 4.0, "int"), ("update", True, "int")):
        with pytest.raises(ExchangeError, match=f"{key!r} = {value!r} is not {kind}"):
            read_answer(as_content(payload, {**meta, key: value}), SPEC)  # type: ignore[dict-item]
    with pytest.raises(PayloadError):
        read_answer(as_content(payload[:-1], meta), SPEC)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", [-1.0, float("nan"), float("inf"), 7, "large"])
def test_a_norm_that_makes_no_sense_counts_as_none(norm: records.MetaValue) -> None:
    meta: dict[str, records.MetaValue] = {
        "reference": "", "update": 1, "version": 0, "spec": "", "residual-norm": norm
    }  # fmt: skip
    assert Answer.of(as_content(b"", meta)).residual_norm == 0.0


def test_a_long_reason_is_shortened_to_one_line() -> None:
    meta: dict[str, records.MetaValue] = {
        "need": "no\nmodel " * 100, "reference": "f" * 1000, "seed": False
    }  # fmt: skip
    answer = Answer.of(as_content(b"", meta))
    assert answer.need.startswith("no model no model")
    assert (len(answer.need), len(answer.held), answer.seed) == (200, 64, False)


# --- frames and records


def test_frames_must_be_those_of_the_model() -> None:
    vector, plain = np.zeros(3, np.float32), ParamSpec.of({"a": np.zeros(3)})
    mixed = ParamSpec.of({"a": np.zeros(3), "n": np.zeros(2, int)})
    codec = build_codec("none")
    without = encode_blob(plain, codec, vector, {}, seed=0)
    with_exact = encode_blob(mixed, codec, vector, {"n": np.zeros(2, int)}, seed=0)
    with pytest.raises(PayloadError, match="holds update; the model needs 2"):
        decode_blob(without, mixed)
    with pytest.raises(PayloadError, match="holds update, exact; the model needs 1"):
        decode_blob(with_exact, plain)


def test_messages_without_payload_or_meta_are_refused() -> None:
    with pytest.raises(ExchangeError, match="no coded payload"):
        records.find_payload(RecordDict())
    assert records.find_payload(RecordDict(), optional=True) == b""
    foreign = RecordDict({"arrays": ArrayRecord({"payload": Array(np.zeros(3, np.uint8))})})
    for optional in (False, True):
        with pytest.raises(ExchangeError, match=r"serialisation type 'numpy.ndarray'"):
            records.find_payload(foreign, optional=optional)
    with pytest.raises(ExchangeError, match="is the other end using fl-opt"):
        records.find_meta(RecordDict())
    with pytest.raises(ExchangeError, match="protocol 1, expected 2"):
        records.find_meta(RecordDict({"fl-opt": ConfigRecord({"protocol": 1})}))


def test_stock_flower_refuses_to_read_a_payload_as_numbers() -> None:
    payload, meta = whole_model(MODEL, RULES)
    array = as_content(payload, meta).array_records["arrays"]["payload"]
    with pytest.raises(TypeError, match="Unsupported serialization type"):
        array.numpy()
