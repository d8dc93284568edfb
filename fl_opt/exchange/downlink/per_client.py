"""A reference of its own for each client.

The server knows to the bit what a client holds, so that the coded difference between the model
and that reference leaves nothing to guess: what one difference leaves out is part of the next.
A client that comes seldom gets all that has happened in one message of a fixed rate.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fl_opt.codecs import Encoder, build_codec
from fl_opt.codecs.update import Vector
from fl_opt.exchange.blob import decode_blob, encode_blob
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.downlink.base import (
    NOTHING,
    SEED,
    Arrays,
    Delivery,
    Downlink,
    Kind,
    Values,
    pack_reference,
    snapshot_of,
    unpack_reference,
)
from fl_opt.exchange.lattice import choose_step, snap
from fl_opt.exchange.masks import encode_mask
from fl_opt.exchange.reference import ExactArrays, Reference
from fl_opt.params import ParamSpec
from fl_opt.seeds import derive_seed


class PerClientDownlink(Downlink):
    """Sends each client the coded difference to what it holds.

    For each client the reference that it has confirmed is kept, and the one that it holds if
    the last message has reached it. When they take more memory than allowed, those of the
    clients that were served longest ago are dropped; such a client gets the difference to the
    seed's model or a snapshot.

    Parameters
    ----------
    codec : str
        Spec.
    seed : int
        Of the run.
    from_seed : bool
        Whether clients can build the first model.
    memory_limit : int
        Bytes of references that may be kept.
    """

    mode: ClassVar[str] = "per-client"

    def __init__(self, codec: str, *, seed: int, from_seed: bool, memory_limit: int) -> None:
        super().__init__()
        build_codec(codec)  # refuses a spec that is wrong
        self._spec_of_codec = codec
        self._seed = seed
        self._from_seed = from_seed
        self._memory_limit = memory_limit
        self._spec = ParamSpec(())
        self._model = Reference(np.empty(0, np.float32), {})
        self._first: Reference | None = None
        self._held: OrderedDict[int, dict[str, Reference]] = OrderedDict()
        self._delivered: dict[int, Delivery] = {}  # of the model as it is now
        self._reached: dict[int, str] = {}  # fingerprints of what these lead to
        self._encoded: dict[str, tuple[Delivery, Reference]] = {}

    def begin(self, spec: ParamSpec, vector: Vector, exact: ExactArrays) -> None:
        """Take over a model set from outside."""
        if spec.fingerprint != self._spec.fingerprint:
            self._held.clear()
            self._first = None
        self._spec = spec
        self.step = self.step or choose_step(vector)
        if self._from_seed and self.version < 0:
            self._first = Reference(snap(vector.copy(), self.step), exact)
        self.advance(vector, exact)

    def use_step(self, step: float) -> None:
        """Go over to another lattice; on it, clients would build another first model."""
        if step != self.step:
            self.step = step
            self._first = None

    def advance(
        self, vector: Vector, exact: ExactArrays, alive: Coverage | None = None
    ) -> None:
        """Take over the next model."""
        self._model = Reference(vector, exact, alive)
        self._delivered.clear()
        self._reached.clear()
        self._encoded.clear()
        self.version += 1

    def serve(
        self, node_id: int, held: str, *, seed: bool, codec: str | None = None
    ) -> Delivery:
        """Return the difference to what the client holds, coded for it alone."""
        base = self._held.get(node_id, {}).get(held)
        return self.serve_from(node_id, held, base, seed=seed, codec=codec)

    def serve_from(
        self,
        node_id: int,
        held: str,
        base: Reference | None,
        *,
        seed: bool,
        codec: str | None = None,
    ) -> Delivery:
        """Do as :meth:`serve` does, for a base that need not be among those kept."""
        if held != NOTHING and held == self._reached.get(node_id):
            return Delivery.of(Kind.CURRENT, held, held, b"")
        before = self._delivered.get(node_id)
        if before and held == before.base:
            return before
        delivery, reference = self._encode(held, base, seed, codec or self._spec_of_codec)
        self._delivered[node_id] = delivery
        self._reached[node_id] = reference.fingerprint
        kept = {held: base} if base is not None else {}
        self._keep(node_id, {**kept, reference.fingerprint: reference})
        return delivery

    def holds(self, node_id: int, held: str) -> bool:
        """Whether a reference is kept as one of a client's."""
        return held in self._held.get(node_id, {})

    def forget(self, node_id: int) -> None:
        """Drop what was prepared for a client and not sent."""
        self._held.pop(node_id, None)
        self._delivered.pop(node_id, None)
        self._reached.pop(node_id, None)

    def confirm(self, node_id: int, held: str) -> None:
        """Drop the other references of a client."""
        kept = self._held.get(node_id, {})
        if held in kept and len(kept) > 1:
            self._held[node_id] = {held: kept[held]}

    def memory_bytes(self) -> int:
        """Return the bytes of all references and of the payloads in use."""
        own = [self._model, *([self._first] if self._first else [])]
        in_use = sum(len(delivery.payload) for delivery in self._delivered.values())
        return sum(r.vector.nbytes for r in own) + self._kept_bytes() + in_use

    def state(self) -> tuple[Values, Arrays]:
        """Return the model and all references."""
        values: Values = {
            "version": self.version,
            "step": self.step,
            "first": self._first is not None,
            "held": [[node_id, list(kept)] for node_id, kept in self._held.items()],
            "reached": [[node_id, reached] for node_id, reached in self._reached.items()],
        }
        arrays = pack_reference("model", self._model)
        if self._first is not None:
            arrays |= pack_reference("first", self._first)
        for kept in self._held.values():
            for key, reference in kept.items():
                arrays |= pack_reference(f"held.{key}", reference)
        return values, arrays

    def restore(self, spec: ParamSpec, values: Mapping[str, Any], arrays: Arrays) -> None:
        """Go on from what :meth:`state` returned."""
        self._spec = spec
        self.version, self.step = int(values["version"]), float(values["step"])
        self._model = unpack_reference("model", spec, arrays)
        self._first = unpack_reference("first", spec, arrays) if values["first"] else None
        self._held.clear()
        known: dict[str, Reference] = {}
        for node_id, keys in values["held"]:
            for key in keys:
                if key not in known:
                    known[key] = unpack_reference(f"held.{key}", spec, arrays)
            self._held[int(node_id)] = {key: known[key] for key in keys}
        self._delivered.clear()
        self._encoded.clear()
        self._reached = {int(node_id): str(name) for node_id, name in values["reached"]}

    def _encode(
        self, held: str, base: Reference | None, seed: bool, codec: str
    ) -> tuple[Delivery, Reference]:
        kind, name = Kind.DIFFERENCE, held
        if base is None and seed and self._first is not None:
            kind, name, base = Kind.FROM_SEED, SEED, self._first
        if base is None:
            return self._whole()
        if kind is Kind.FROM_SEED and self.version == 0:
            return Delivery.of(kind, name, base.fingerprint, b""), base
        key = f"{name} {codec}"
        if key not in self._encoded:
            self._encoded[key] = self._difference(kind, name, base, build_codec(codec))
        return self._encoded[key]

    def _difference(
        self, kind: Kind, name: str, base: Reference, codec: Encoder
    ) -> tuple[Delivery, Reference]:
        """Encode, once for all clients that hold the same."""
        place = derive_seed(self._seed, "downlink", self.version, zlib.crc32(name.encode()))
        alive = self._model.alive
        mask = encode_mask(base.alive, alive, self._spec.size)
        base = base.pruned(alive)
        difference = self._model.vector - base.vector
        if alive is not None:
            difference = alive.gather(difference)
        payload = encode_blob(
            self._spec, codec, difference, self._model.exact, seed=place, covers=alive
        )
        if len(mask) + len(payload) > 4 * self._spec.size:
            return self._whole()
        update, exact = decode_blob(payload, self._spec, alive)
        moved = base.moved([update], exact, self.step)
        return Delivery.of(kind, name, moved.fingerprint, mask + payload), moved

    def _whole(self) -> tuple[Delivery, Reference]:
        if NOTHING not in self._encoded:
            vector = snap(self._model.vector.copy(), self.step)
            reference = Reference(vector, self._model.exact, self._model.alive)
            self._encoded[NOTHING] = snapshot_of(self._spec, reference), reference
        return self._encoded[NOTHING]

    def _keep(self, node_id: int, references: dict[str, Reference]) -> None:
        self._held[node_id] = references
        self._held.move_to_end(node_id)
        while self._kept_bytes() > self._memory_limit and len(self._held) > 1:
            self._held.popitem(last=False)

    def _kept_bytes(self) -> int:
        # Clients that hold the same share it.
        kept = {id(r): r for references in self._held.values() for r in references.values()}
        return sum(r.vector.nbytes for r in kept.values())
