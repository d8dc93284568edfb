"""What every downlink does, and what it hands out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from fl_opt.codecs import Encoder, build_codec
from fl_opt.codecs.update import Vector
from fl_opt.exchange import records
from fl_opt.exchange.blob import encode_blob
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.exact import encode_exact
from fl_opt.exchange.masks import encode_mask
from fl_opt.exchange.reference import ExactArrays, Reference
from fl_opt.params import ParamSpec

SEED: Final = "seed"
"""In place of a base's fingerprint: the model that both ends build from the run's seed."""
NOTHING: Final = ""
"""In place of a base's fingerprint: zero, for a client that holds no model."""

Values = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


class Kind(StrEnum):
    """What a message to a client carries."""

    FULL = "full"
    """The whole model, which the client is not to keep."""
    SNAPSHOT = "snapshot"
    """The whole reference, exactly."""
    FROM_SEED = "from-seed"
    """The difference to the model built from the seed."""
    DELTA = "delta"
    """The last step of the shared reference."""
    CHAIN = "chain"
    """Several of these steps, one after the other."""
    SUM = "sum"
    """Several of these steps in one."""
    DIFFERENCE = "difference"
    """The coded difference to the client's own reference."""
    CURRENT = "current"
    """Nothing: the client holds the reference."""


@dataclass(frozen=True)
class Delivery:
    """What takes a client from the reference it holds to the one it is to train from.

    Attributes
    ----------
    kind : Kind
    base : str
        Fingerprint of the reference it builds on; :data:`SEED` or :data:`NOTHING`.
    fingerprint : str
        Of the reference that comes out.
    payload : bytes
        Frames: any number of masks and of updates to add up, and the exact arrays if the
        model has some. Empty if there is nothing to send.
    record : ArrayRecord or None
        The payload as Flower sends it: the same object for all clients that get the same.
    """

    kind: Kind
    base: str
    fingerprint: str
    payload: bytes
    record: ArrayRecord | None

    @classmethod
    def of(cls, kind: Kind, base: str, fingerprint: str, payload: bytes) -> Delivery:
        """Pack a payload."""
        record = records.pack_payload(payload) if payload else None
        return cls(kind, base, fingerprint, payload, record)


class Downlink(ABC):
    """Keeps references in step with those that clients hold.

    Begin with :meth:`begin`; :meth:`advance` after each step of the model; :meth:`serve` for
    each message; :meth:`confirm` with what a client says it holds.

    Attributes
    ----------
    version : int
        How many times the model has been set or has moved on.
    step : float
        Of the lattice on which references live; 0 without one.
    """

    mode: ClassVar[str]
    keeps: ClassVar[bool] = True
    """Whether clients are to keep what they receive."""

    def __init__(self) -> None:
        self.version = -1
        self.step = 0.0

    @abstractmethod
    def begin(self, spec: ParamSpec, vector: Vector, exact: ExactArrays) -> None:
        """Take over a model set from outside; the version moves on."""

    @abstractmethod
    def advance(
        self, vector: Vector, exact: ExactArrays, alive: Coverage | None = None
    ) -> None:
        """Take over the next model; the version moves on.

        Parameters
        ----------
        vector : ndarray of float32, shape (size,)
            Only read; it must not change any more.
        exact : mapping of str to ndarray
        alive : Coverage, optional
            What is not pruned; the vector is zero elsewhere. None: nothing is pruned.
        """

    def prepare(self, holdings: Iterable[str]) -> None:  # noqa: B027
        """Be told what the clients of a round hold, before they are served one by one."""

    @abstractmethod
    def serve(
        self, node_id: int, held: str, *, seed: bool, codec: str | None = None
    ) -> Delivery:
        """Return what a client is to be sent.

        Parameters
        ----------
        node_id : int
        held : str
            Fingerprint of the reference that the client is believed to hold, or
            :data:`NOTHING`.
        seed : bool
            Whether the client may be able to build the first model from the seed.
        codec : str, optional
            Spec of a difference that is coded for it alone; the others go by their own.
        """

    def confirm(self, node_id: int, held: str) -> None:  # noqa: B027
        """Be told what a client says it holds."""

    @abstractmethod
    def memory_bytes(self) -> int:
        """Return the bytes of references and payloads that are held, all in all."""

    @abstractmethod
    def state(self) -> tuple[Values, Arrays]:
        """Return all that a later server needs to go on, as plain values and arrays."""

    @abstractmethod
    def restore(self, spec: ParamSpec, values: Mapping[str, Any], arrays: Arrays) -> None:
        """Go on from what :meth:`state` returned."""


def snapshot_of(spec: ParamSpec, reference: Reference) -> Delivery:
    """Return a reference as a whole, as float32."""
    codec = build_codec("fp32")
    payload = whole_blob(spec, codec, reference, seed=0)
    return Delivery.of(Kind.SNAPSHOT, NOTHING, reference.fingerprint, payload)


def whole_blob(spec: ParamSpec, codec: Encoder, reference: Reference, *, seed: int) -> bytes:
    """Encode a reference as a whole, for a client that holds nothing."""
    alive, vector = reference.alive, reference.vector
    mask = encode_mask(None, alive, spec.size)
    if alive is not None:
        vector = alive.gather(vector)
    return mask + encode_blob(spec, codec, vector, reference.exact, seed=seed, covers=alive)


def exact_frame(spec: ParamSpec, exact: ExactArrays) -> bytes:
    """Return the frame of the exact arrays; empty if there are none."""
    return encode_exact(spec, exact) if spec.exact_arrays else b""


def pack_reference(prefix: str, reference: Reference) -> Arrays:
    """Return a reference as named arrays."""
    exact = {f"{prefix}.exact.{name}": array for name, array in reference.exact.items()}
    alive = {f"{prefix}.alive": pack_alive(reference.alive)} if reference.alive else {}
    return {f"{prefix}.vector": reference.vector, **exact, **alive}


def unpack_reference(prefix: str, spec: ParamSpec, arrays: Mapping[str, Any]) -> Reference:
    """Read what :func:`pack_reference` wrote."""
    exact = {a.name: arrays[f"{prefix}.exact.{a.name}"] for a in spec.exact_arrays}
    alive = unpack_alive(arrays.get(f"{prefix}.alive"), spec)
    return Reference(arrays[f"{prefix}.vector"], exact, alive)


def pack_alive(alive: Coverage) -> NDArray[np.uint8]:
    """Return a mask as an array."""
    return np.frombuffer(alive.bits, np.uint8)


def unpack_alive(bits: NDArray[Any] | None, spec: ParamSpec) -> Coverage | None:
    """Read what :func:`pack_alive` wrote; None if there was no mask."""
    return None if bits is None else Coverage(spec.size, bits.tobytes())
