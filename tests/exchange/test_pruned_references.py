"""References of a model that is pruned on the way: the same bits and zeros at both ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from fl_opt.checkpoint import pack_state, unpack_state
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.downlink import Downlink, DownlinkOptions, Kind
from fl_opt.exchange.downlink.build import build_downlink
from fl_opt.params import ParamSpec
from tests.exchange.ends import Client, same_bits

INITIAL: dict[str, Any] = {
    "weight": np.random.default_rng(0).normal(0, 0.1, (60, 10)).astype(np.float32),
    "bias": np.zeros(10, np.float32),
    "steps": np.array(0),
}
SPEC = ParamSpec.of(INITIAL)
WAYS = {
    "full": DownlinkOptions("full", "fp32"),
    "full bf16": DownlinkOptions("full", "bf16"),
    "shared": DownlinkOptions("shared", "ecsq(6.0)"),
    "shared, one step size": DownlinkOptions("shared", "ecsq(step=0.01)"),
    "shared, rotated": DownlinkOptions("shared", "eden(2)"),
    "shared, chains": DownlinkOptions("shared", "int8", catch_up="chain"),
    "per client": DownlinkOptions("per-client", "ecsq(6.0)"),
    "per client int4": DownlinkOptions("per-client", "int4"),
    "auto": DownlinkOptions("auto", "ecsq(6.0)"),
    "auto, few entries": DownlinkOptions("auto", "topk(0.1) | ternary"),
}
EVENTS = {4: 0.5, 8: 0.8, 9: 0.9}
"""Share of the weights that is pruned, by version."""
VERSIONS = 14
SPANS = (1, 2, 3), (11, 12, 13)
"""Before and after."""


class Server:
    """A model that moves and is pruned, behind a downlink."""

    def __init__(self, way: str, first_contact: str) -> None:
        options = {**vars(WAYS[way]), "first_contact": first_contact}
        self.options = DownlinkOptions(**options)
        self.downlink: Downlink = build_downlink(self.options, seed=3)
        self.vector = SPEC.flatten(INITIAL)
        self.alive: Coverage | None = None
        self.generator = np.random.default_rng(1)
        self.order = np.random.default_rng(2).permutation(600)
        self.downlink.begin(SPEC, self.vector.copy(), self.exact)

    @property
    def exact(self) -> dict[str, Any]:
        return {"steps": np.array(max(self.downlink.version, 0))}

    def move(self) -> None:
        step = self.generator.normal(0, 0.02, SPEC.size).astype(np.float32)
        self.vector = self.vector + step
        if (share := EVENTS.get(self.downlink.version + 1)) is not None:
            mask = np.ones(SPEC.size, np.bool_)
            mask[self.order[: round(share * 600)]] = False
            self.alive = Coverage.of(mask)
        if self.alive is not None:
            self.alive.clear_others(self.vector)
        self.downlink.advance(self.vector.copy(), self.exact, self.alive)

    def start_anew(self) -> None:
        """Be replaced by another server, which knows what this one has written down."""
        values, arrays = unpack_state(pack_state(*self.downlink.state()))
        self.downlink = build_downlink(self.options, seed=3)
        self.downlink.restore(SPEC, values, arrays)


@pytest.mark.parametrize("first_contact", ["seed", "snapshot"])
@pytest.mark.parametrize("way", WAYS)
def test_clients_that_come_and_go_hold_the_same_zeros(way: str, first_contact: str) -> None:
    server = Server(way, first_contact)
    initial = INITIAL if first_contact == "seed" else None
    clients = [Client(node, initial) for node in range(5)]
    chance = np.random.default_rng(7)
    sizes: dict[int, list[int]] = {}
    for version in range(VERSIONS):
        for client in clients:
            if chance.random() < 0.6:
                if chance.random() < 0.15:
                    client.restart()
                # The client compares its reference's fingerprint, mask included, with ours.
                delivery = client.get(server.downlink, SPEC, answered=chance.random() < 0.8)
                sizes.setdefault(version, []).append(len(delivery.payload))
                assert client.model.alive == server.alive
                if server.alive is not None:
                    assert not client.model.vector[~server.alive.mask].any()
        if version in (5, 8):
            server.start_anew()
        server.move()
    early, late = (np.median([s for v in at for s in sizes.get(v, [])]) for at in SPANS)
    assert late < 0.6 * early  # the exact arrays and headers do not shrink


@pytest.mark.parametrize("way", [way for way in WAYS if not way.startswith("full")])
def test_who_has_followed_is_near_the_model(way: str) -> None:
    server = Server(way, "seed")
    client = Client(1, INITIAL)
    for _ in range(VERSIONS):
        client.get(server.downlink, SPEC)
        server.move()
    server.downlink.advance(server.vector.copy(), server.exact, server.alive)
    for _ in range(12):  # the model stands still: what is left out goes to zero
        client.get(server.downlink, SPEC)
        server.downlink.advance(server.vector.copy(), server.exact, server.alive)
    error = np.linalg.norm(client.model.vector - server.vector)
    assert error < 0.1 * np.linalg.norm(server.vector)


def test_missed_steps_are_summed_up_across_prunings() -> None:
    server = Server("shared, one step size", "snapshot")
    client, rare = Client(1), Client(2)
    client.get(server.downlink, SPEC)
    rare.get(server.downlink, SPEC)
    for _ in range(10):
        server.move()
        client.get(server.downlink, SPEC)
    delivery = rare.get(server.downlink, SPEC)
    assert delivery.kind is Kind.SUM
    assert same_bits(rare.model, client.model)
    assert rare.model.fingerprint == client.model.fingerprint


@pytest.mark.parametrize("way", WAYS)
def test_a_model_set_from_outside_has_nothing_pruned(way: str) -> None:
    server = Server(way, "snapshot")
    client = Client(1)
    for _ in range(5):
        client.get(server.downlink, SPEC)
        server.move()
    client.get(server.downlink, SPEC)
    assert client.model.alive is not None
    server.downlink.begin(SPEC, SPEC.flatten(INITIAL), {"steps": np.array(1)})
    client.get(server.downlink, SPEC)
    assert client.model.alive is None


def test_a_fingerprint_tells_masks_apart() -> None:
    server = Server("full", "snapshot")
    client = Client(1)
    client.get(server.downlink, SPEC)
    reference = client.model
    first = Coverage.at(np.flatnonzero(reference.vector), SPEC.size)
    fewer = Coverage.at(np.flatnonzero(reference.vector)[1:], SPEC.size)
    assert reference.pruned(None) is reference
    # The biases are zero as it is: nothing but the mask differs.
    pruned = reference.pruned(first)
    assert same_bits(pruned, reference)
    assert len({r.fingerprint for r in (reference, pruned, reference.pruned(fewer))}) == 3


def test_a_client_keeps_its_mask_in_its_state() -> None:
    server = Server("per client", "snapshot")
    for _ in range(5):
        server.move()
    client = Client(1)
    client.get(server.downlink, SPEC)
    part = Coverage.at(np.arange(7), SPEC.size)
    records = RecordDict()
    ClientState(SPEC, client.model, 3, b"payload", 2, part, 0.5).store(records)
    state = ClientState.load(records)
    assert state.reference is not None
    assert state.reference.alive == server.alive
    assert state.reference.fingerprint == client.model.fingerprint
    assert (state.covers, state.width) == (part, 0.5)
