"""One reference for all clients, moved by coded steps.

The server keeps the reference, not the model it would like clients to have: each step encodes
the model's difference to the reference, and what a step leaves out is still in the next
difference. That is error feedback for the broadcast (Gruntkowska, Tyurin and Richtarik 2023,
arXiv 2209.15218, call it EF21-P).

All of it happens on a lattice (:mod:`fl_opt.exchange.lattice`), so that a client which missed
steps can be sent their exact sum in place of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from fl_opt.codecs.update import Vector
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.downlink.base import (
    SEED,
    Arrays,
    Delivery,
    Downlink,
    Kind,
    Values,
    exact_frame,
    pack_alive,
    pack_reference,
    snapshot_of,
    unpack_alive,
    unpack_reference,
)
from fl_opt.exchange.downlink.history import History, Link
from fl_opt.exchange.downlink.mover import Mover
from fl_opt.exchange.lattice import choose_step, encode_exactly, fits, snap
from fl_opt.exchange.masks import encode_mask
from fl_opt.exchange.moves import alive_after, read_moves
from fl_opt.exchange.reference import ExactArrays, Reference
from fl_opt.params import ParamSpec
from fl_opt.wire import MAX_FRAMES


class SharedDownlink(Downlink):
    """Moves one reference; serves chains, sums, differences to the seed's model, snapshots.

    Of all that take a client exactly to the reference the one with the fewest bytes is sent.

    Parameters
    ----------
    mover : Mover
        Encodes the steps.
    from_seed : bool
        Whether clients can build the first model.
    history_bytes : int
        Limit of the payloads of past steps. A client that is further behind gets the difference
        to the seed's model, or a snapshot.
    sums : bool
        Whether sums may be sent; without them chains are, which is good for comparisons only.
    """

    mode: ClassVar[str] = "shared"

    def __init__(
        self, mover: Mover, *, from_seed: bool, history_bytes: int, sums: bool = True
    ) -> None:
        super().__init__()
        self._mover = mover
        self._from_seed = from_seed
        self._history_bytes = history_bytes
        self._sums_allowed = sums
        self._spec = ParamSpec(())
        self._reference = Reference(np.empty(0, np.float32), {})
        self._first: Reference | None = None
        self._history = History(self._spec, 0.0, 0)
        self._deliveries: dict[str, Delivery] = {}

    @property
    def reference(self) -> Reference:
        """What clients of the current version hold."""
        return self._reference

    def begin(self, spec: ParamSpec, vector: Vector, exact: ExactArrays) -> None:
        """Make a model the first reference, rounded to the lattice."""
        self._spec = spec
        self._set(Reference(vector, exact))
        self._first = self._reference if self._from_seed and self.version < 0 else None
        self.version += 1

    def advance(
        self, vector: Vector, exact: ExactArrays, alive: Coverage | None = None
    ) -> None:
        """Move the reference towards a model."""
        before, spec = self._reference, self._spec
        difference, layout = vector - before.vector, None
        if alive is not None:
            difference, layout = alive.gather(difference), alive.layout(spec)
        payload = encode_mask(before.alive, alive, spec.size)
        payload += self._mover.encode(spec, difference, self.version, layout)
        moves, _ = read_moves(payload, spec, before.alive)
        moved = before.moved(moves, exact, self.step)
        if fits(moved.vector, self.step):
            link = Link(before.fingerprint, self.version, payload, before.alive, alive)
            self._history.append(link)
            self._reference = moved
        else:  # the model has outgrown the lattice: everybody starts anew on a coarser one
            self._set(Reference(vector, exact, alive))
            self._first = None
        self._deliveries.clear()
        self.version += 1

    def prepare(self, holdings: Iterable[str]) -> None:
        """Add up steps for all clients of a round in one pass."""
        if self._sums_allowed:
            self._history.prepare(holdings)

    def serve(
        self, node_id: int, held: str, *, seed: bool, codec: str | None = None
    ) -> Delivery:
        """Return the cheapest way to the reference, encoded once for all who need it."""
        key = f"{held}{SEED if seed else ''}"
        if key not in self._deliveries:
            self._deliveries[key] = self._cheapest(held, seed)
        return self._deliveries[key]

    def reference_at(self, held: str) -> Reference | None:
        """Return a past reference, with today's exact arrays; None if it is not known.

        What has been pruned since is not known either.
        """
        here = self._reference
        if held == here.fingerprint:
            return here
        lag = self._history.lag(held)
        if lag and self._history.keeps_mask(lag):
            vector = here.vector - self._history.total(lag)
            return Reference(vector, here.exact, here.alive)
        return None

    def memory_bytes(self) -> int:
        """Return the bytes of references, payloads of steps, and payloads in use."""
        references = [self._reference, *([self._first] if self._first else [])]
        in_use = sum(len(delivery.payload) for delivery in self._deliveries.values())
        return sum(r.vector.nbytes for r in references) + self._history.memory_bytes() + in_use

    def state(self) -> tuple[Values, Arrays]:
        """Return references and past steps."""
        links = self._history.links
        values = {
            "version": self.version,
            "step": self.step,
            "links": [[link.base, link.version] for link in links],
            "first": self._first is not None,
        }
        arrays = pack_reference("reference", self._reference)
        if self._first is not None:
            arrays |= pack_reference("first", self._first)
        if links and links[0].before is not None:
            arrays["links.alive"] = pack_alive(links[0].before)
        for index, link in enumerate(links):
            arrays[f"link.{index}"] = np.frombuffer(link.payload, np.uint8)
        return values, arrays

    def restore(self, spec: ParamSpec, values: Mapping[str, Any], arrays: Arrays) -> None:
        """Go on from what :meth:`state` returned."""
        self._spec = spec
        self.version, self.step = int(values["version"]), float(values["step"])
        self._reference = unpack_reference("reference", spec, arrays)
        self._first = unpack_reference("first", spec, arrays) if values["first"] else None
        self._history = History(spec, self.step, self._history_bytes)
        after = unpack_alive(arrays.get("links.alive"), spec)
        for index, (base, version) in enumerate(values["links"]):
            payload = arrays[f"link.{index}"].tobytes()
            before, after = after, alive_after(payload, spec, after)
            self._history.append(Link(str(base), int(version), payload, before, after))
        self._deliveries.clear()

    def _set(self, model: Reference) -> None:
        self.step = choose_step(model.vector)
        vector = snap(model.vector.copy(), self.step)
        self._reference = Reference(vector, model.exact, model.alive)
        self._history = History(self._spec, self.step, self._history_bytes)
        self._deliveries.clear()

    def _cheapest(self, held: str, seed: bool) -> Delivery:
        here = self._reference.fingerprint
        if held == here:
            return Delivery.of(Kind.CURRENT, held, here, b"")
        tail = exact_frame(self._spec, self._reference.exact)
        found: list[Delivery] = []
        if lag := self._history.lag(held):
            if self._history.num_frames(lag) + bool(tail) <= MAX_FRAMES:
                kind = Kind.DELTA if lag == 1 else Kind.CHAIN
                found.append(Delivery.of(kind, held, here, self._history.chain(lag) + tail))
            if self._sums_allowed and lag > 1:
                payload = self._history.coded_sum(lag) + tail
                found.append(Delivery.of(Kind.SUM, held, here, payload))
        elif seed and self._first is not None:
            if self._first.fingerprint == here:
                return Delivery.of(Kind.FROM_SEED, SEED, here, b"")
            payload = self._from_first(self._first)
            found.append(Delivery.of(Kind.FROM_SEED, SEED, here, payload + tail))
        if not found or min(len(d.payload) for d in found) > 4 * self._spec.size:
            found.append(snapshot_of(self._spec, self._reference))
        return min(found, key=lambda delivery: len(delivery.payload))

    def _from_first(self, first: Reference) -> bytes:
        """Encode what leads from the seed's model to the reference, exactly."""
        alive = self._reference.alive
        difference = self._reference.vector - first.vector
        if alive is not None:
            difference = alive.gather(difference)
        mask = encode_mask(first.alive, alive, self._spec.size)
        return mask + min(encode_exactly(difference, self.step), key=len)
