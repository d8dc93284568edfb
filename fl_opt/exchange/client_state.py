"""All that a client remembers between messages, in its ``context.state``.

============================  =====================================================
``fl-opt.exchange``           ids, the model's description, the last payload sent
``fl-opt.reference``          the model that the client holds
``fl-opt.feedback``           the vectors of its feedback
``fl-opt.feedback.model``     fingerprint of the model that they belong to
============================  =====================================================

The state lives in the memory of a SuperNode: it survives from message to message, not a
restart. It is replaced as a whole when a message has been answered, so that one which fails on
the way changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fl_opt.errors import FlOptError
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.exact import encode_exact, read_exact
from fl_opt.exchange.reference import Reference
from fl_opt.params import ParamSpec
from fl_opt.wire import FrameKind, read_frame

_EXCHANGE: Final = "fl-opt.exchange"
_REFERENCE: Final = "fl-opt.reference"
_VECTOR: Final = "vector"
_EXACT: Final = "exact"
_ALIVE: Final = "alive"
_STYPE: Final = "fl_opt.vector/1"


@dataclass(frozen=True)
class ClientState:
    """What a client knows when a message comes.

    Attributes
    ----------
    spec : ParamSpec or None
        Of the model.
    reference : Reference or None
        The model that it holds.
    update : int
        Id of the last update that it has sent; 0 if none.
    payload : bytes
        That update, as long as it is not known whether it was accepted.
    acknowledged : int
        Id of the last update that it knows was accepted.
    covers : Coverage or None
        What the payload covers of the model; None: all of it.
    width : float
        Width of the sub-model that was trained for it; 1 for the whole model.
    """

    spec: ParamSpec | None = None
    reference: Reference | None = None
    update: int = 0
    payload: bytes = b""
    acknowledged: int = 0
    covers: Coverage | None = None
    width: float = 1.0

    @classmethod
    def load(cls, records: RecordDict) -> ClientState:
        """Read the state; what is missing or damaged counts as not there."""
        known = records.config_records.get(_EXCHANGE)
        if known is None:
            return cls()
        try:
            model = known["model"]
            spec = ParamSpec.from_bytes(model) if isinstance(model, bytes) and model else None
            reference = _load_reference(records, spec)
            update, payload = known["update"], known["payload"]
            acknowledged = known["acknowledged"]
            bits, width = known.get("covers", b""), known.get("width", 1.0)
            covers = None
            if bits and spec is not None and isinstance(bits, bytes):
                covers = Coverage(spec.size, bits)
        except (FlOptError, KeyError, ValueError):
            return cls()
        if (
            not isinstance(update, int)
            or not isinstance(payload, bytes)
            or not isinstance(acknowledged, int)
            or not isinstance(width, float)
        ):
            return cls()
        return cls(spec, reference, update, payload, acknowledged, covers, width)

    def store(self, records: RecordDict) -> None:
        """Replace the state that is kept."""
        part: dict[str, bytes | float] = {}
        if self.covers is not None:
            part = {"covers": self.covers.bits, "width": self.width}
        records[_EXCHANGE] = ConfigRecord(
            {
                "model": self.spec.to_bytes() if self.spec else b"",
                "update": self.update,
                "payload": self.payload,
                "acknowledged": self.acknowledged,
                **part,
            }
        )
        if self.reference is None or self.spec is None:
            records.pop(_REFERENCE, None)
            return
        vector = self.reference.vector
        arrays = {_VECTOR: _pack("float32", vector.shape, vector.astype("<f4").tobytes())}
        if self.spec.exact_arrays:
            frame = encode_exact(self.spec, self.reference.exact)
            arrays[_EXACT] = _pack("uint8", (len(frame),), frame)
        if (alive := self.reference.alive) is not None:
            arrays[_ALIVE] = _pack("uint8", (len(alive.bits),), alive.bits)
        records[_REFERENCE] = ArrayRecord(arrays)


def _load_reference(records: RecordDict, spec: ParamSpec | None) -> Reference | None:
    arrays = records.array_records.get(_REFERENCE)
    if arrays is None or spec is None:
        return None
    vector = np.frombuffer(arrays[_VECTOR].data, "<f4")
    if vector.size != spec.size:
        return None
    exact = {}
    if spec.exact_arrays:
        reader = read_frame(arrays[_EXACT].data, FrameKind.EXACT)
        exact = read_exact(reader, spec)
        reader.finish()
    alive = Coverage(spec.size, arrays[_ALIVE].data) if _ALIVE in arrays else None
    return Reference(vector, exact, alive)


def _pack(dtype: str, shape: tuple[int, ...], data: bytes) -> Array:
    return Array(dtype, shape, _STYPE, data)
