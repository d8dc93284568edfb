"""The whole model in every message: for clients that keep nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np

from fl_opt.codecs import Codec, build_codec
from fl_opt.codecs.update import Vector
from fl_opt.errors import ConfigError
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.downlink.base import (
    NOTHING,
    Arrays,
    Delivery,
    Downlink,
    Kind,
    Values,
    pack_reference,
    unpack_reference,
    whole_blob,
)
from fl_opt.exchange.moves import read_moves
from fl_opt.exchange.reference import ExactArrays, Reference
from fl_opt.params import ParamSpec

PRECISIONS: Final = ("fp32", "fp16", "bf16")


class FullDownlink(Downlink):
    """Sends the model as it is, encoded once for all clients.

    Parameters
    ----------
    codec : str
        Spec of a codec that keeps every entry in at least 16 bits.

    Raises
    ------
    ConfigError
        If it does not.
    """

    mode: ClassVar[str] = "full"
    keeps: ClassVar[bool] = False

    def __init__(self, codec: str) -> None:
        super().__init__()
        self._codec = build_codec(codec)
        if (
            not isinstance(self._codec, Codec)
            or self._codec.selection.sparse
            or self._codec.quantizer.name not in PRECISIONS
        ):
            raise ConfigError(
                f"downlink codec {codec!r} would damage the model; a whole model can be sent "
                f"as {', '.join(PRECISIONS)}"
            )
        self._spec = ParamSpec(())
        self._reference = Reference(np.empty(0, np.float32), {})
        self._delivery: Delivery | None = None

    def begin(self, spec: ParamSpec, vector: Vector, exact: ExactArrays) -> None:
        """Take over a model."""
        self._spec = spec
        self.advance(vector, exact)

    def advance(
        self, vector: Vector, exact: ExactArrays, alive: Coverage | None = None
    ) -> None:
        """Take over the next model."""
        self._reference = Reference(vector, exact, alive)
        self._delivery = None
        self.version += 1

    def serve(
        self, node_id: int, held: str, *, seed: bool, codec: str | None = None
    ) -> Delivery:
        """Return the model."""
        if self._delivery is None:
            payload = whole_blob(self._spec, self._codec, self._reference, seed=self.version)
            moves, _ = read_moves(payload, self._spec)
            nothing = Reference(np.zeros(self._spec.size, np.float32), {})
            decoded = nothing.moved(moves, self._reference.exact, self.step)
            self._delivery = Delivery.of(Kind.FULL, NOTHING, decoded.fingerprint, payload)
        return self._delivery

    def memory_bytes(self) -> int:
        """Return the bytes of the model and of its payload."""
        payload = len(self._delivery.payload) if self._delivery else 0
        return self._reference.vector.nbytes + payload

    def state(self) -> tuple[Values, Arrays]:
        """Return version and model."""
        return {"version": self.version}, pack_reference("model", self._reference)

    def restore(self, spec: ParamSpec, values: Mapping[str, Any], arrays: Arrays) -> None:
        """Go on from what :meth:`state` returned."""
        self._spec = spec
        model = unpack_reference("model", spec, arrays)
        self.advance(model.vector, model.exact, model.alive)
        self.version = int(values["version"])
