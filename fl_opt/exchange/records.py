"""Where things lie in Flower's records.

Both directions carry one ArrayRecord ``arrays`` with the payload as its only entry (none where
there is nothing to send), and one ConfigRecord ``fl-opt`` with what the other end must know to
read it. The payload is marked with a serialisation type of its own, so that a strategy that
knows nothing of codecs refuses it instead of averaging code bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fl_opt.errors import ExchangeError
from fl_opt.params import NamedArrays

ARRAYS: Final = "arrays"
PAYLOAD: Final = "payload"
META: Final = "fl-opt"
CONFIG: Final = "config"
METRICS: Final = "metrics"
EVALUATION: Final = "fl-opt.evaluation"
STYPE: Final = "fl_opt/1"
PROTOCOL: Final = 2

MetaValue = int | float | str | bytes | bool
T = TypeVar("T", int, float, str, bytes, bool)


def pack_payload(payload: bytes) -> ArrayRecord:
    """Return the ArrayRecord that carries a payload."""
    return ArrayRecord({PAYLOAD: Array("uint8", (len(payload),), STYPE, payload)})


def pack_arrays(named: NamedArrays) -> ArrayRecord:
    """Return plain arrays as Flower has them."""
    return ArrayRecord({name: Array(array) for name, array in named.items()})


def unpack_arrays(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the plain arrays of a record."""
    return {name: array.numpy() for name, array in record.items()}


def find_payload(content: RecordDict, *, optional: bool = False) -> bytes:
    """Return the payload of a message; empty, where it is optional, if there is none.

    Raises
    ------
    ExchangeError
        If there is none, or it is not marked as one of ours.
    """
    record = content.array_records.get(ARRAYS)
    if record is None and optional:
        return b""
    if record is None or list(record) != [PAYLOAD]:
        raise ExchangeError(f"message has no coded payload under {ARRAYS!r}")
    array = record[PAYLOAD]
    if array.stype != STYPE:
        raise ExchangeError(
            f"payload has serialisation type {array.stype!r}, expected {STYPE!r}"
        )
    return array.data


def pack_meta(values: Mapping[str, MetaValue]) -> ConfigRecord:
    """Return the ConfigRecord that goes beside a payload."""
    return ConfigRecord({"protocol": PROTOCOL, **values})


def find_meta(content: RecordDict) -> ConfigRecord:
    """Return the record beside the payload.

    Raises
    ------
    ExchangeError
        If there is none or it speaks another protocol.
    """
    record = content.config_records.get(META)
    if record is None:
        raise ExchangeError(f"message has no {META!r} record: is the other end using fl-opt?")
    protocol = record.get("protocol")
    if protocol != PROTOCOL:
        raise ExchangeError(f"message speaks protocol {protocol!r}, expected {PROTOCOL}")
    return record


def meta_value(meta: Mapping[str, object], key: str, kind: type[T]) -> T:
    """Return a value of the record beside a payload, its type checked."""
    value = meta.get(key)
    if type(value) is not kind:
        raise ExchangeError(f"{META!r} record: {key!r} = {value!r:.80} is not {kind.__name__}")
    return value
