"""Server to client and back, without a network: models, updates, residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import build_codec
from fl_opt.errors import CodecError, ConfigError, ExchangeError, ModelError, PayloadError
from fl_opt.exchange import records
from fl_opt.exchange.blob import decode_blob, encode_blob
from fl_opt.exchange.downlink import (
    Received,
    ReplyRules,
    build_downlink_codec,
    pack_broadcast,
    unpack_broadcast,
)
from fl_opt.exchange.feedback import Residual
from fl_opt.exchange.feedback.store import load_state
from fl_opt.exchange.uplink import decode_reply, encode_reply, reply_meta
from fl_opt.params import NamedArrays, ParamSpec

MODEL: dict[str, NDArray[Any]] = {
    "weight": np.linspace(-1, 1, 60).reshape(6, 10).astype(np.float32),
    "bias": np.array(0.5, np.float64),
    "empty": np.zeros((0, 4), np.float32),
    "steps": np.array([3, 2**40]),
}
SPEC = ParamSpec.of(MODEL)
RULES = ReplyRules("topk(0.1) | ternary", feedback="residual", seed=1)


def broadcast(
    rules: ReplyRules = RULES, codec: str = "fp32", model: NamedArrays = MODEL, version: int = 4
) -> RecordDict:
    spec = ParamSpec.of(model)
    return pack_broadcast(
        spec,
        build_downlink_codec(codec),
        spec.flatten(model),
        spec.exact_part(model),
        version=version,
        rules=rules,
    )


def receive(content: RecordDict) -> Received:
    return unpack_broadcast(records.find_payload(content), records.find_meta(content))


def residual_in(state: RecordDict, spec: ParamSpec = SPEC) -> NDArray[np.float32] | None:
    return load_state(state, Residual(), spec).get("residual")


def as_content(payload: bytes, meta: Mapping[str, records.MetaValue]) -> RecordDict:
    return RecordDict(
        {"arrays": records.pack_payload(payload), "fl-opt": records.pack_meta(meta)}
    )


def trained(step: float = 0.01, seed: int = 0) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    return {
        "weight": MODEL["weight"] + generator.normal(0, step, (6, 10)).astype(np.float32),
        "bias": MODEL["bias"] + step,
        "empty": MODEL["empty"],
        "steps": MODEL["steps"] + 1,
    }


@pytest.mark.parametrize("codec", ["fp32", "none", "bf16", "fp16"])
def test_a_client_receives_the_model(codec: str) -> None:
    received = receive(broadcast(codec=codec))
    assert received.version == 4
    assert received.spec == SPEC
    arrays = received.arrays()
    for name, array in MODEL.items():
        assert arrays[name].dtype == array.dtype
        tolerance = 0.0 if codec in ("fp32", "none") else 4e-3
        np.testing.assert_allclose(arrays[name], array, atol=tolerance)


def test_a_client_may_change_its_arrays_without_harm_to_the_reference() -> None:
    received = receive(broadcast())
    for array in received.arrays().values():
        np.add(array, 1, out=array)
    again = received.arrays()
    np.testing.assert_array_equal(again["weight"], MODEL["weight"])
    np.testing.assert_array_equal(again["steps"], MODEL["steps"])


@pytest.mark.parametrize("codec", ["topk(0.5)", "int8", "stc"])
def test_codecs_that_would_damage_a_whole_model_are_refused(codec: str) -> None:
    with pytest.raises(ConfigError, match="would damage the model"):
        build_downlink_codec(codec)


def test_server_gets_the_update_and_the_residual_holds_the_rest() -> None:
    received, state = receive(broadcast()), RecordDict()
    carried = np.zeros(SPEC.size)
    applied = np.zeros(SPEC.size)
    for turn in range(5):
        after = trained(seed=turn)
        carried += SPEC.flatten(after) - received.reference
        payload = encode_reply(received, after, state, client_id=3)
        reply = decode_reply(as_content(payload, reply_meta(received)), SPEC, version=4)
        assert reply.update.count == 6
        reply.update.add_to(applied)
        residual = residual_in(state)
        assert residual is not None
        np.testing.assert_allclose(applied + residual, carried, atol=1e-6)
        np.testing.assert_array_equal(reply.exact["steps"], MODEL["steps"] + 1)


def test_without_feedback_no_residual_is_kept_and_an_old_one_is_dropped() -> None:
    state = RecordDict()
    encode_reply(receive(broadcast()), trained(), state, client_id=0)
    assert residual_in(state) is not None
    rules = ReplyRules("stc", feedback="none", seed=1)
    encode_reply(receive(broadcast(rules)), trained(), state, client_id=0)
    assert residual_in(state) is None
    assert not state


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_names_the_array_and_keeps_the_state(bad: float) -> None:
    received, state = receive(broadcast()), RecordDict()
    encode_reply(received, trained(), state, client_id=0)
    before = residual_in(state)
    assert before is not None
    broken = trained()
    broken["bias"] = np.array(bad)
    with pytest.raises(CodecError, match=f"array 'bias' holds {bad}"):
        encode_reply(received, broken, state, client_id=0)
    np.testing.assert_array_equal(residual_in(state), before)


def test_a_model_of_other_shape_is_refused() -> None:
    broken = {**trained(), "weight": np.zeros((5, 10), np.float32)}
    with pytest.raises(ModelError, match="'weight' has shape"):
        encode_reply(receive(broadcast()), broken, RecordDict(), client_id=0)


def test_randomness_of_replies_depends_on_client_and_version() -> None:
    rules = ReplyRules("uniform(2, 64, stochastic)", feedback="none", seed=1)
    payloads = {
        encode_reply(receive(broadcast(rules, version=v)), trained(), RecordDict(), client_id=c)
        for v in (1, 2)
        for c in (0, 1)
        for _ in range(2)
    }
    assert len(payloads) == 4


def test_replies_of_another_model_or_version_are_refused() -> None:
    received = receive(broadcast())
    payload = encode_reply(received, trained(), RecordDict(), client_id=0)
    meta = reply_meta(received)
    other = ParamSpec.of({**MODEL, "more": np.zeros(1, np.float32)})
    with pytest.raises(ExchangeError, match="another model"):
        decode_reply(as_content(payload, meta), other, version=4)
    with pytest.raises(ExchangeError, match="version 4, expected 5"):
        decode_reply(as_content(payload, meta), SPEC, version=5)
    with pytest.raises(ExchangeError, match=r"'version' = 4\.0 is not int"):
        decode_reply(as_content(payload, {**meta, "version": 4.0}), SPEC, version=4)
    with pytest.raises(PayloadError):
        decode_reply(as_content(payload[:-1], meta), SPEC, version=4)


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
    foreign = RecordDict({"arrays": ArrayRecord({"payload": Array(np.zeros(3, np.uint8))})})
    with pytest.raises(ExchangeError, match=r"serialisation type 'numpy.ndarray'"):
        records.find_payload(foreign)
    with pytest.raises(ExchangeError, match="is the other end using fl-opt"):
        records.find_meta(RecordDict())
    with pytest.raises(ExchangeError, match="protocol 2, expected 1"):
        records.find_meta(RecordDict({"fl-opt": ConfigRecord({"protocol": 2})}))


def test_stock_flower_refuses_to_read_a_payload_as_numbers() -> None:
    array = broadcast().array_records["arrays"]["payload"]
    with pytest.raises(TypeError, match="Unsupported serialization type"):
        array.numpy()
