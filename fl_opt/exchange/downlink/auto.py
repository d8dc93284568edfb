"""Shared as long as that is cheap; then, client by client, a reference of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from fl_opt.checkpoint import below
from fl_opt.codecs.update import Vector
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.downlink.base import Arrays, Delivery, Downlink, Kind, Values
from fl_opt.exchange.downlink.per_client import PerClientDownlink
from fl_opt.exchange.downlink.shared import SharedDownlink
from fl_opt.exchange.reference import ExactArrays
from fl_opt.params import ParamSpec


class AutoDownlink(Downlink):
    """Counts what both would send to a client, and sends the smaller.

    A client stays on the shared reference until its way to it takes more bytes than the
    difference coded for it alone; from then on it has a reference of its own, until it loses
    it. Frequent clients end up sharing, rare ones apart.

    Parameters
    ----------
    shared : SharedDownlink
    per_client : PerClientDownlink
    """

    mode: ClassVar[str] = "auto"

    def __init__(self, shared: SharedDownlink, per_client: PerClientDownlink) -> None:
        super().__init__()
        self._shared = shared
        self._per_client = per_client

    def begin(self, spec: ParamSpec, vector: Vector, exact: ExactArrays) -> None:
        """Take over a model set from outside."""
        self._shared.begin(spec, vector, exact)
        self._per_client.use_step(self._shared.step)
        self._per_client.begin(spec, vector, exact)
        self._follow()

    def advance(
        self, vector: Vector, exact: ExactArrays, alive: Coverage | None = None
    ) -> None:
        """Take over the next model."""
        self._shared.advance(vector, exact, alive)
        self._per_client.advance(vector, exact, alive)
        self._per_client.use_step(self._shared.step)
        self._follow()

    def prepare(self, holdings: Iterable[str]) -> None:
        """Be told what the clients of a round hold."""
        self._shared.prepare(holdings)

    def serve(
        self, node_id: int, held: str, *, seed: bool, codec: str | None = None
    ) -> Delivery:
        """Return the smaller of both, or the one that the client depends on."""
        if self._per_client.holds(node_id, held):
            return self._per_client.serve(node_id, held, seed=seed)
        shared = self._shared.serve(node_id, held, seed=seed)
        if shared.kind in (Kind.CURRENT, Kind.DELTA) or not shared.payload:
            return shared
        base = self._shared.reference_at(held)
        own = self._per_client.serve_from(node_id, held, base, seed=seed)
        if len(own.payload) < len(shared.payload):
            return own
        self._per_client.forget(node_id)
        return shared

    def confirm(self, node_id: int, held: str) -> None:
        """Be told what a client says it holds."""
        self._per_client.confirm(node_id, held)

    def memory_bytes(self) -> int:
        """Return the bytes that both hold."""
        return self._shared.memory_bytes() + self._per_client.memory_bytes()

    def state(self) -> tuple[Values, Arrays]:
        """Return the state of both."""
        values, arrays = self._shared.state()
        own_values, own_arrays = self._per_client.state()
        return {"shared": values, "per-client": own_values}, {
            **{f"shared/{name}": array for name, array in arrays.items()},
            **{f"per-client/{name}": array for name, array in own_arrays.items()},
        }

    def restore(self, spec: ParamSpec, values: Mapping[str, Any], arrays: Arrays) -> None:
        """Go on from what :meth:`state` returned."""
        self._shared.restore(spec, values["shared"], below(arrays, "shared/"))
        self._per_client.restore(spec, values["per-client"], below(arrays, "per-client/"))
        self._follow()

    def _follow(self) -> None:
        self.version, self.step = self._shared.version, self._shared.step
