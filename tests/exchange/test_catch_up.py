"""Each client gets the cheapest message that is exact; what the server keeps is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_opt.exchange.downlink import Downlink, DownlinkOptions, Kind, build_downlink
from fl_opt.exchange.downlink.auto import AutoDownlink
from fl_opt.exchange.downlink.base import NOTHING
from fl_opt.exchange.downlink.mover import build_mover
from fl_opt.exchange.downlink.per_client import PerClientDownlink
from fl_opt.exchange.downlink.shared import SharedDownlink
from fl_opt.params import ParamSpec
from tests.exchange.ends import Client

SIZE = 2000
MODEL = {
    "weight": np.random.default_rng(0).normal(0, 0.1, SIZE).astype(np.float32),
    "steps": np.array(0),
}
SPEC = ParamSpec.of(MODEL)
EXACT = {"steps": MODEL["steps"]}
VECTOR_BYTES = 4 * SIZE
LATTICE, SPARSE = "ecsq(step=0.004)", "topk(0.02) | ternary"


def moves(count: int, seed: int = 1) -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    return [generator.normal(0, 0.005, SIZE).astype(np.float32) for _ in range(count)]


class Model:
    """A model that several downlinks follow."""

    def __init__(self, *downlinks: Downlink) -> None:
        self.downlinks = downlinks
        self.vector = SPEC.flatten(MODEL)
        for downlink in downlinks:
            downlink.begin(SPEC, self.vector, EXACT)

    def move(self, *steps: NDArray[np.float32]) -> None:
        for step in steps:
            self.vector = self.vector + step
            for downlink in self.downlinks:
                downlink.advance(self.vector, EXACT)


def shared(codec: str = LATTICE, *, seed: bool = False, limit: int = 10**9) -> SharedDownlink:
    mover = build_mover(codec, seed=0)
    return SharedDownlink(mover, from_seed=seed, history_bytes=limit)


def chains(codec: str = LATTICE, limit: int = 10**9) -> SharedDownlink:
    mover = build_mover(codec, seed=0)
    return SharedDownlink(mover, from_seed=False, history_bytes=limit, sums=False)


def per_client(
    codec: str = "ecsq(2.0)", *, seed: bool = False, limit: int = 10**9
) -> PerClientDownlink:
    return PerClientDownlink(codec, seed=0, from_seed=seed, memory_limit=limit)


def size_of(downlink: Downlink, held: str, *, seed: bool = False) -> int:
    return len(downlink.serve(99, held, seed=seed).payload)


class TestShared:
    def test_first_contact_from_the_seed_costs_nothing(self) -> None:
        downlink = shared(seed=True)
        Model(downlink)
        delivery = Client(1, MODEL).get(downlink, SPEC)
        assert (delivery.kind, delivery.payload) == (Kind.FROM_SEED, b"")
        assert Client(2).get(downlink, SPEC).kind is Kind.SNAPSHOT

    def test_later_first_contact_is_the_exact_difference_to_the_seeds_model(self) -> None:
        downlink = shared(seed=True)
        Model(downlink).move(*moves(5))
        delivery = Client(1, MODEL).get(downlink, SPEC)
        assert delivery.kind is Kind.FROM_SEED
        assert 0 < len(delivery.payload) < VECTOR_BYTES / 4
        assert Client(2).get(downlink, SPEC).fingerprint == delivery.fingerprint

    def test_who_missed_nothing_gets_the_last_step_and_then_nothing(self) -> None:
        downlink, client = shared(), Client(1)
        model = Model(downlink)
        client.get(downlink, SPEC)
        model.move(*moves(1))
        assert [client.get(downlink, SPEC).kind for _ in range(2)] == [Kind.DELTA, Kind.CURRENT]

    @pytest.mark.parametrize(
        ("codec", "lag", "kind"),
        [
            (LATTICE, 2, Kind.SUM),
            (LATTICE, 30, Kind.SUM),
            (SPARSE, 2, Kind.CHAIN),
        ],
    )
    def test_who_missed_steps_gets_what_is_cheapest(
        self, codec: str, lag: int, kind: Kind
    ) -> None:
        downlink, chain, client = shared(codec), chains(codec), Client(1)
        model = Model(downlink, chain)
        client.get(downlink, SPEC)
        held = client.held
        model.move(*moves(lag))
        candidates = [size_of(chain, held), size_of(downlink, NOTHING)]
        delivery = client.get(downlink, SPEC)
        assert delivery.kind is kind
        assert len(delivery.payload) <= min(candidates)
        assert client.held == chain.serve(1, held, seed=False).fingerprint

    def test_steps_that_cancel_out_are_sent_as_nothing(self) -> None:
        downlink, chain, client = shared(), chains(), Client(1)
        model = Model(downlink, chain)
        client.get(downlink, SPEC)
        held = client.held
        step, other = moves(2)
        model.move(step, step, other, -step, -step)
        assert size_of(downlink, held) < size_of(chain, held) / 3

    def test_without_sums_the_chain_is_sent(self) -> None:
        downlink, client = chains(), Client(1)
        model = Model(downlink)
        client.get(downlink, SPEC)
        model.move(*moves(4))
        assert client.get(downlink, SPEC).kind is Kind.CHAIN

    def test_a_chain_dearer_than_a_snapshot_gives_way_to_one(self) -> None:
        downlink, client = chains(), Client(1)
        model = Model(downlink)
        client.get(downlink, SPEC)
        model.move(*moves(40))
        assert client.get(downlink, SPEC).kind is Kind.SNAPSHOT

    def test_a_step_that_moves_nothing_takes_no_bytes_to_speak_of(self) -> None:
        downlink, client = shared(), Client(1)
        model = Model(downlink)
        client.get(downlink, SPEC)
        model.move(np.full(SIZE, 1e-5, np.float32))
        model.downlinks[0].advance(model.vector, {"steps": np.array(1)})
        delivery = client.get(downlink, SPEC)
        assert delivery.kind in (Kind.DELTA, Kind.SUM, Kind.CHAIN)
        assert len(delivery.payload) < 150

    def test_a_chain_of_more_frames_than_a_message_may_have(self) -> None:
        """One of 255 steps and the exact arrays fits, one of 256 does not."""
        for lag, kind in ((255, Kind.CHAIN), (256, Kind.SNAPSHOT)):
            downlink, client = chains("topk(0.0005) | sign"), Client(1)
            model = Model(downlink)
            client.get(downlink, SPEC)
            model.move(*[np.eye(1, SIZE, n, np.float32)[0] for n in range(lag)])
            assert client.get(downlink, SPEC).kind is kind

    def test_adding_up_beforehand_changes_nothing(self) -> None:
        prepared, unprepared = shared(), shared()
        model = Model(prepared, unprepared)
        holdings = []
        for step in moves(9):
            holdings.append(prepared.reference.fingerprint)
            model.move(step)
        prepared.prepare([*holdings, "unknown", NOTHING])
        for held in holdings:
            one, other = (d.serve(1, held, seed=False) for d in (prepared, unprepared))
            assert (one.kind, one.payload) == (other.kind, other.payload)

    def test_who_comes_back_after_the_history_ends_starts_anew(self) -> None:
        for seed, kind in ((True, Kind.FROM_SEED), (False, Kind.SNAPSHOT)):
            downlink = shared(seed=seed, limit=2000)
            client = Client(1, MODEL if seed else None)
            model = Model(downlink)
            client.get(downlink, SPEC)
            model.move(*moves(20))
            assert client.get(downlink, SPEC).kind is kind

    def test_memory_does_not_grow_with_the_number_of_versions(self) -> None:
        limit = 4000
        downlink = shared(limit=limit)
        model = Model(downlink)
        clients = [Client(n) for n in range(3)]
        for step in moves(40):
            for client in clients[: 1 + downlink.version % 3]:
                client.get(downlink, SPEC)
            model.move(step)
        assert downlink.memory_bytes() < limit + 4 * VECTOR_BYTES
        assert downlink.memory_bytes() > limit / 2 + VECTOR_BYTES

    def test_a_limit_below_one_step_keeps_the_last_one(self) -> None:
        downlink, client = shared(limit=1), Client(1)
        model = Model(downlink)
        for step in moves(3):
            client.get(downlink, SPEC)
            model.move(step)
        assert client.get(downlink, SPEC).kind is Kind.DELTA


class TestPerClient:
    def test_what_one_difference_leaves_out_is_in_the_next(self) -> None:
        downlink, client = per_client(), Client(1)
        model = Model(downlink)
        client.get(downlink, SPEC)
        model.move(*moves(1))
        errors = []
        for _ in range(6):
            assert client.get(downlink, SPEC).kind is Kind.DIFFERENCE
            errors.append(float(np.linalg.norm(model.vector - client.model.vector)))
            model.move(np.zeros(SIZE, np.float32))
        assert errors[-1] < errors[0] / 100

    def test_a_rare_client_pays_no_more_than_a_frequent_one(self) -> None:
        downlink, often, seldom = per_client(), Client(1), Client(2)
        model = Model(downlink)
        for client in (often, seldom):
            client.get(downlink, SPEC)
        for step in moves(12):
            model.move(step)
            last = often.get(downlink, SPEC)
        late = seldom.get(downlink, SPEC)
        assert late.kind is last.kind is Kind.DIFFERENCE
        assert len(late.payload) < 1.1 * len(last.payload)

    def test_first_contact(self) -> None:
        downlink = per_client(seed=True)
        model = Model(downlink)
        free = Client(1, MODEL).get(downlink, SPEC)
        assert (free.kind, free.payload) == (Kind.FROM_SEED, b"")
        model.move(*moves(3))
        later = Client(2, MODEL).get(downlink, SPEC)
        assert later.kind is Kind.FROM_SEED
        assert 0 < len(later.payload) < VECTOR_BYTES / 8
        assert Client(3).get(downlink, SPEC).kind is Kind.SNAPSHOT

    def test_asked_twice_it_gives_the_same(self) -> None:
        downlink, client = per_client(), Client(1)
        model = Model(downlink)
        client.get(downlink, SPEC)
        model.move(*moves(1))
        lost = downlink.serve(1, client.held, seed=False)
        assert downlink.serve(1, client.held, seed=False) is lost
        assert client.get(downlink, SPEC) is lost
        assert client.get(downlink, SPEC).kind is Kind.CURRENT

    def test_both_of_two_possible_references_are_kept_until_one_is_confirmed(self) -> None:
        """A message may have been lost, or only its reply."""
        for arrived in (False, True):
            downlink, client = per_client(), Client(1)
            model = Model(downlink)
            client.get(downlink, SPEC)
            model.move(*moves(1))
            before = client.held
            if arrived:
                client.get(downlink, SPEC, answered=False)
                assert downlink.holds(1, before)
            else:
                downlink.serve(1, before, seed=False)
            assert downlink.holds(1, client.held)
            model.move(*moves(1, seed=2))
            assert client.get(downlink, SPEC).kind is Kind.DIFFERENCE
            assert downlink.memory_bytes() < 4 * VECTOR_BYTES

    @pytest.mark.parametrize("seed", [True, False])
    def test_clients_served_longest_ago_are_forgotten(self, seed: bool) -> None:
        room = 4
        downlink = per_client("ecsq(1.0)", seed=seed, limit=room * VECTOR_BYTES)
        model = Model(downlink)
        clients = [Client(n, MODEL if seed else None) for n in range(1, 9)]
        for client, step in zip(clients, moves(8), strict=True):
            model.move(step)
            client.get(downlink, SPEC)
            assert downlink.memory_bytes() <= (room + 2.2) * VECTOR_BYTES
        assert [downlink.holds(c.node_id, c.held) for c in clients] == [False] * 4 + [True] * 4
        model.move(*moves(1, seed=5))
        anew = Kind.FROM_SEED if seed else Kind.SNAPSHOT
        assert clients[-1].get(downlink, SPEC).kind is Kind.DIFFERENCE
        assert clients[0].get(downlink, SPEC).kind is anew

    def test_clients_that_hold_the_same_share_it(self) -> None:
        downlink = per_client()
        model = Model(downlink)
        clients = [Client(n) for n in range(50)]
        for step in moves(2):
            for client in clients:
                client.get(downlink, SPEC)
            model.move(step)
        assert downlink.memory_bytes() < 4 * VECTOR_BYTES

    def test_a_codec_dearer_than_a_snapshot_gives_way_to_one(self) -> None:
        downlink, client = per_client("fp32"), Client(1)
        model = Model(downlink)
        client.get(downlink, SPEC)
        model.move(*moves(1))
        assert client.get(downlink, SPEC).kind is Kind.SNAPSHOT


class TestAuto:
    def test_frequent_clients_share_and_rare_ones_have_their_own(self) -> None:
        downlink = build_downlink(DownlinkOptions("auto", "ecsq(1.0)", "snapshot"), seed=0)
        model, often, seldom = Model(downlink), Client(1), Client(2)
        for client in (often, seldom):
            client.get(downlink, SPEC)
        kinds = []
        for number, step in enumerate(moves(20), 1):
            model.move(step)
            assert often.get(downlink, SPEC).kind is Kind.DELTA
            if number % 10 == 0:
                kinds.append(seldom.get(downlink, SPEC).kind)
        assert kinds == [Kind.DIFFERENCE] * 2
        assert often.held != seldom.held

    @pytest.mark.parametrize("codec", [LATTICE, SPARSE, "ecsq(1.0)", "int8"])
    @pytest.mark.parametrize("lag", [1, 2, 8])
    def test_never_dearer_than_either_alone(self, codec: str, lag: int) -> None:
        alone = shared(codec)
        auto = AutoDownlink(shared(codec), per_client(codec))
        model, client = Model(alone, auto), Client(1)
        client.get(auto, SPEC)
        held = client.held
        model.move(*moves(lag))
        own = per_client(codec)
        base = alone.reference_at(held)
        own.begin(SPEC, model.vector, EXACT)
        own.use_step(alone.step)
        difference = own.serve_from(1, held, base, seed=False)
        sent = len(client.get(auto, SPEC).payload)
        assert sent <= size_of(alone, held)
        if lag > 1:
            assert sent <= 1.02 * len(difference.payload)

    def test_who_has_lost_its_own_reference_may_share_again(self) -> None:
        downlink = AutoDownlink(shared("ecsq(1.0)"), per_client("ecsq(1.0)"))
        model, client = Model(downlink), Client(1)
        client.get(downlink, SPEC)
        model.move(*moves(10))
        assert client.get(downlink, SPEC).kind is Kind.DIFFERENCE
        client.restart()
        model.move(*moves(1, seed=4))
        assert client.get(downlink, SPEC).kind is Kind.SNAPSHOT
        model.move(*moves(1, seed=5))
        assert client.get(downlink, SPEC).kind is Kind.DELTA
