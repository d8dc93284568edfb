"""Whatever the mode, clients that come and go hold what the server says, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_opt.checkpoint import pack_state, unpack_state
from fl_opt.errors import ConfigError
from fl_opt.exchange.downlink import MODES, Delivery, Downlink, DownlinkOptions, Kind
from fl_opt.exchange.downlink.build import build_downlink
from fl_opt.params import ParamSpec
from tests.exchange.ends import Client, same_bits

Model = dict[str, NDArray[Any]]
Vector = NDArray[np.float32]


def normal(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 0.1, shape)


MODELS: dict[str, Model] = {
    "plain": {"weight": normal(15, 10).astype(np.float32)},
    "batch norm": {
        "weight": normal(15, 10).astype(np.float32),
        "bn.running_mean": normal(10, seed=1).astype(np.float32),
        "bn.num_batches_tracked": np.array(0),
    },
    "mixed": {
        "half": normal(60, seed=2).astype(np.float16),
        "double": normal(6, 10, seed=3),
        "scalar": np.float32(0.5),  # type: ignore[dict-item]
        "empty": np.zeros((0, 3), np.float32),
        "no-flags": np.zeros(0, bool),
        "count": np.int64(3),  # type: ignore[dict-item]
    },
}
WAYS = {
    "full": DownlinkOptions("full", "fp32"),
    "full bf16": DownlinkOptions("full", "bf16"),
    "shared": DownlinkOptions("shared", "ecsq(2.0)"),
    "shared, one step size": DownlinkOptions("shared", "ecsq(step=0.01)"),
    "shared, few entries": DownlinkOptions("shared", "topk(0.1) | ternary"),
    "shared, chains": DownlinkOptions("shared", "int8", catch_up="chain"),
    "per client": DownlinkOptions("per-client", "ecsq(2.0)"),
    "per client int8": DownlinkOptions("per-client", "int8"),
    "auto": DownlinkOptions("auto", "ecsq(2.0)"),
    "auto, few entries": DownlinkOptions("auto", "topk(0.1) | ternary"),
}


BEGINNINGS = [("plain", "seed"), ("batch norm", "snapshot"), ("mixed", "seed")]


class Run:
    """A model that moves, and clients that come when they like."""

    def __init__(self, way: DownlinkOptions, model: Model, first_contact: str) -> None:
        self.settings = DownlinkOptions(way.mode, way.codec, first_contact, way.catch_up)
        self.spec = ParamSpec.of(model, ["*running_mean"])
        self.vector = self.spec.flatten(model)
        self.exact = {n: np.array(a) for n, a in self.spec.exact_part(model).items()}
        self.downlink = self.new_downlink()
        self.downlink.begin(self.spec, self.vector, self.exact)
        initial = model if first_contact == "seed" else None
        self.clients = [Client(node_id, initial) for node_id in range(1, 6)]

    def new_downlink(self) -> Downlink:
        return build_downlink(self.settings, seed=3)

    def visits(self, generator: np.random.Generator) -> list[Delivery]:
        """The first client always comes, the last one seldom.

        Now and then one restarts, or is sent a message that does not reach it.
        """
        chances = (1.0, 0.7, 0.5, 0.3, 0.15)
        here = [c for c, p in zip(self.clients, chances, strict=True) if generator.random() < p]
        for client in here:
            if generator.random() < 0.1:
                client.restart()
            if generator.random() < 0.2:
                self.downlink.serve(client.node_id, client.held, seed=bool(client.initial))
        self.downlink.prepare([client.held for client in here])
        deliveries = [client.get(self.downlink, self.spec) for client in here]
        for client in here:
            self.check(client)
        return deliveries

    def check(self, client: Client) -> None:
        """That a client holds what it should; that it is as on the server says its version."""
        assert same_bits_of_exact(client, self.exact)
        assert client.model.vector.shape == self.vector.shape
        if self.downlink.keeps:
            again = self.downlink.serve(client.node_id, client.held, seed=False)
            assert (again.kind, again.payload) == (Kind.CURRENT, b"")
            assert again.fingerprint == client.model.fingerprint

    def advance(self, generator: np.random.Generator) -> None:
        noise = generator.normal(0, 0.01, self.vector.shape).astype(np.float32)
        self.vector = self.vector + noise
        self.exact = {
            name: (array + 1).astype(array.dtype) for name, array in self.exact.items()
        }
        before = self.downlink.version
        self.downlink.advance(self.vector, self.exact)
        assert self.downlink.version == before + 1


def same_bits_of_exact(client: Client, exact: Model) -> bool:
    vector = client.model.vector
    return same_bits(type(client.model)(vector, exact), client.model)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> DownlinkOptions:
    return WAYS[request.param]


@pytest.mark.parametrize(("model", "first_contact"), BEGINNINGS)
def test_clients_that_come_and_go_hold_what_the_server_says(
    way: DownlinkOptions, model: str, first_contact: str
) -> None:
    run = Run(way, MODELS[model], first_contact)
    generator = np.random.default_rng(7)
    for _ in range(10):
        run.visits(generator)
        run.advance(generator)
    # Nobody lags behind in values either: what was left out so far is less than was moved.
    [client] = run.clients[:1]
    client.get(run.downlink, run.spec)
    moved = np.linalg.norm(run.vector - run.spec.flatten(MODELS[model]))
    assert np.linalg.norm(run.vector - client.model.vector) < 0.9 * moved


@pytest.mark.parametrize(("model", "first_contact"), BEGINNINGS)
def test_a_restored_downlink_goes_on_identically(
    way: DownlinkOptions, model: str, first_contact: str
) -> None:
    run = Run(way, MODELS[model], first_contact)
    generator = np.random.default_rng(8)
    for _ in range(5):
        run.visits(generator)
        run.advance(generator)
    run.visits(generator)  # the state is taken with clients served already
    values, arrays = unpack_state(pack_state(*run.downlink.state()))
    other = copy.copy(run)
    other.clients = copy.deepcopy(run.clients)
    other.downlink = run.new_downlink()
    other.downlink.restore(run.spec, values, arrays)
    assert (other.downlink.version, other.downlink.step) == (
        run.downlink.version,
        run.downlink.step,
    )
    whole: list[Any] = []
    resumed: list[Any] = []
    for one, deliveries in ((run, whole), (other, resumed)):
        later = np.random.default_rng(9)
        for number in range(6):
            if number:  # clients that have been served may come again before the model moves
                one.advance(later)
            for delivery in one.visits(later):
                what = (delivery.kind, delivery.base, delivery.fingerprint, delivery.payload)
                deliveries.append(what)
    assert whole == resumed
    assert len(whole) > 10


@pytest.mark.parametrize("first_contact", ["seed", "snapshot"])
def test_a_model_that_outgrows_the_lattice(way: DownlinkOptions, first_contact: str) -> None:
    run = Run(way, MODELS["batch norm"], first_contact)
    generator = np.random.default_rng(1)
    for factor in (1.0, 1e3, 1.0, 1e7, 1.0, 1.0):
        run.vector = run.vector * np.float32(factor)
        run.advance(generator)
        run.visits(generator)
    run.clients.append(Client(9, run.clients[0].initial and run.clients[0].initial()))
    run.clients[-1].get(run.downlink, run.spec)
    run.check(run.clients[-1])
    if way.mode in ("shared", "auto"):
        assert run.downlink.step >= 1e9 * 2.0**-23


def test_a_model_set_from_outside(way: DownlinkOptions) -> None:
    """Of the same kind, then of another: nothing that clients hold leads them astray."""
    run = Run(way, MODELS["plain"], "snapshot")
    generator = np.random.default_rng(2)
    run.visits(generator)
    run.advance(generator)
    run.vector = run.vector[::-1].copy()
    run.downlink.begin(run.spec, run.vector, run.exact)
    run.visits(generator)
    run.spec = ParamSpec.of(MODELS["batch norm"], ["*running_mean"])
    run.vector = run.spec.flatten(MODELS["batch norm"])
    run.exact = {n: np.array(a) for n, a in run.spec.exact_part(MODELS["batch norm"]).items()}
    run.downlink.begin(run.spec, run.vector, run.exact)
    for client in run.clients:
        client.restart()
    for _ in range(3):
        run.visits(generator)
        run.advance(generator)


@pytest.mark.parametrize("mode", ["shared", "per-client", "auto"])
def test_another_model_cannot_be_built_from_the_seed(mode: str) -> None:
    """The seed stands for the model that the run began with, not for a later one."""
    run = Run(DownlinkOptions(mode, "ecsq(2.0)"), MODELS["plain"], "seed")
    spec = ParamSpec.of({"w": np.zeros(5, np.float32)})
    run.downlink.begin(spec, np.ones(5, np.float32), {})
    assert run.downlink.serve(1, "", seed=True).kind is Kind.SNAPSHOT


def test_equal_messages_share_one_record(way: DownlinkOptions) -> None:
    """So that it is encoded, stored and sent to a SuperLink once."""
    run = Run(way, MODELS["plain"], "snapshot")
    deliveries = [client.get(run.downlink, run.spec) for client in run.clients]
    assert len({id(delivery.record) for delivery in deliveries}) == 1
    run.advance(np.random.default_rng(0))
    deliveries = [client.get(run.downlink, run.spec) for client in run.clients]
    assert len({id(delivery.record) for delivery in deliveries}) == 1


def test_negative_zeros_in_the_model(way: DownlinkOptions) -> None:
    """Their sign is lost on the way; both ends know."""
    model: Model = {"weight": np.array([-0.0, -1e-9, 0.5, -0.5] * 20, np.float32)}
    for first_contact in ("seed", "snapshot"):
        run = Run(way, model, first_contact)
        for _ in range(3):
            for client in run.clients:
                client.get(run.downlink, run.spec)
            run.vector = run.vector - np.float32(1e-9)
            run.downlink.advance(run.vector, {})


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            (DownlinkOptions("fast"), "downlink.mode = 'fast' is not one of full, shared"),
            (DownlinkOptions(first_contact="mail"), "downlink.first-contact = 'mail'"),
            (DownlinkOptions(catch_up="none"), "downlink.catch-up = 'none' is not one of sum"),
            (DownlinkOptions(memory_mb=0), "downlink.memory-mb = 0 is not at least 1"),
            (DownlinkOptions("full", "stc"), "downlink codec 'stc' would damage the model"),
            (DownlinkOptions("shared", "topk(2)"), "density = 2"),
            (DownlinkOptions("per-client", "topk(2)"), "density = 2"),
        ],
    )
    def test_what_is_wrong_is_refused_when_it_is_built(
        self, settings: DownlinkOptions, reason: str
    ) -> None:
        with pytest.raises(ConfigError, match=reason):
            build_downlink(settings, seed=0)

    @pytest.mark.parametrize("mode", MODES)
    def test_every_mode_can_be_built(self, mode: str) -> None:
        assert build_downlink(DownlinkOptions(mode, "fp32"), seed=0).mode == mode
