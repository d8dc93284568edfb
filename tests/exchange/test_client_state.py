"""What a client remembers between messages, and what becomes of it when it is damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from numpy.typing import NDArray

from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.reference import Reference
from fl_opt.params import ParamSpec
from tests.exchange.ends import same_bits

EXCHANGE, REFERENCE = "fl-opt.exchange", "fl-opt.reference"
MODEL: dict[str, NDArray[Any]] = {
    "weight": np.linspace(-1, 1, 20).astype(np.float32),
    "running_mean": np.full(4, 0.1),
    "steps": np.array(7),
}
SPEC = ParamSpec.of(MODEL, ["running_*"])
HELD = Reference.of(SPEC, MODEL, step=2.0**-20)


def stored(spec: ParamSpec = SPEC, held: Reference = HELD) -> RecordDict:
    records = RecordDict({"mine": ConfigRecord({"n": 1})})
    state = ClientState(spec, held, update=9, payload=b"coded", acknowledged=8)
    state.store(records)
    return recorddict_from_proto(recorddict_to_proto(records))  # as from another process


def test_a_new_client_knows_nothing() -> None:
    assert ClientState.load(RecordDict()) == ClientState()


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        {"w": np.linspace(0, 1, 6, dtype=np.float64).reshape(2, 3)},
        {"w": np.ones(3, np.float16), "empty": np.zeros((0, 2), np.float32), "n": np.array(1)},
    ],
)
def test_survives_serialisation(model: dict[str, NDArray[Any]]) -> None:
    spec = ParamSpec.of(model, ["running_*"])
    held = Reference.of(spec, model, step=2.0**-20)
    found = ClientState.load(stored(spec, held))
    assert found.spec == spec
    assert found.reference is not None
    assert same_bits(found.reference, held)
    assert found.reference.fingerprint == held.fingerprint
    assert (found.update, found.payload, found.acknowledged) == (9, b"coded", 8)


def test_is_replaced_as_a_whole_and_nothing_else_is_touched() -> None:
    records = stored()
    ClientState(SPEC, None, update=10).store(records)
    assert set(records) == {"mine", EXCHANGE}
    assert ClientState.load(records) == ClientState(SPEC, None, update=10)


def with_array(name: str, array: Array) -> Callable[[RecordDict], None]:
    def change(records: RecordDict) -> None:
        arrays = dict(records.array_records[REFERENCE])
        records[REFERENCE] = ArrayRecord({**arrays, name: array})

    return change


def without(name: str) -> Callable[[RecordDict], None]:
    def change(records: RecordDict) -> None:
        arrays = dict(records.array_records[REFERENCE])
        del arrays[name]
        records[REFERENCE] = ArrayRecord(arrays)

    return change


def with_entry(key: str, value: Any) -> Callable[[RecordDict], None]:
    def change(records: RecordDict) -> None:
        records.config_records[EXCHANGE][key] = value

    return change


def without_entry(key: str) -> Callable[[RecordDict], None]:
    def change(records: RecordDict) -> None:
        del records.config_records[EXCHANGE][key]

    return change


@pytest.mark.parametrize(
    "damage",
    [
        with_entry("model", b"[[junk"),
        with_entry("model", b'[["w",[1],"float32"]]'),
        with_entry("update", "nine"),
        with_entry("payload", 3.0),
        with_entry("acknowledged", 1.5),
        without_entry("model"),
        without_entry("update"),
        without_entry("payload"),
        without_entry("acknowledged"),
        without("vector"),
        without("exact"),
        with_array("vector", Array("float32", (20,), "fl_opt.vector/1", bytes(79))),
        with_array("exact", Array("uint8", (3,), "fl_opt.vector/1", b"flo")),
    ],
)
def test_a_damaged_state_counts_as_not_there(damage: Callable[[RecordDict], None]) -> None:
    records = stored()
    damage(records)
    assert ClientState.load(records) == ClientState()


def test_a_reference_of_another_size_counts_as_not_there() -> None:
    records = stored()
    with_array("vector", Array("float32", (19,), "fl_opt.vector/1", bytes(76)))(records)
    found = ClientState.load(records)
    assert found.reference is None
    assert found.update == 9


def test_a_reference_that_was_changed_has_another_fingerprint() -> None:
    records = stored()
    vector = bytearray(records.array_records[REFERENCE]["vector"].data)
    vector[5] ^= 1
    with_array("vector", Array("float32", (20,), "fl_opt.vector/1", bytes(vector)))(records)
    found = ClientState.load(records).reference
    assert found is not None
    assert found.fingerprint != HELD.fingerprint


def test_references_cannot_be_changed_by_accident() -> None:
    found = ClientState.load(stored()).reference
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found.vector[0] = 1.0
