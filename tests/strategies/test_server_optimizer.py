from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fl_opt.errors import ConfigError, ModelError
from fl_opt.simulation.identity import act_as_server
from strategies.server_optimizer import (
    SERVER_OPTIMIZERS,
    Adagrad,
    Adam,
    ServerOptimizer,
    Sgd,
    State,
    Vector,
    Yogi,
    build_server_optimizer,
)

SIZE = 50
ROUNDS = 6
SPECS = (
    "sgd",
    "sgd(eta=0.5, momentum=0.9)",
    "sgd(momentum=0.5, nesterov=1)",
    "adagrad",
    "adam",
    "yogi",
)

Exact = NDArray[np.float64]
Formula = Callable[[Exact, Exact, dict[str, Exact]], Exact]


def updates() -> list[Vector]:
    """Updates of very different sizes, some entries of them 0."""
    generator = np.random.default_rng(5)
    scales = 10.0 ** generator.uniform(-6, 0, SIZE)
    rounds = generator.standard_normal((ROUNDS, SIZE)) * scales
    rounds[generator.random((ROUNDS, SIZE)) < 0.3] = 0.0
    return list(rounds.astype(np.float32))


def start() -> Vector:
    return np.linspace(-1, 1, SIZE, dtype=np.float32)


def drive(optimizer: ServerOptimizer) -> tuple[list[Vector], State]:
    model, state = start(), optimizer.init(SIZE)
    models = []
    for delta in updates():
        model, state = optimizer.apply(model, delta.copy(), state)
        models.append(model.copy())
    return models, state


def plain_sgd(w: Exact, d: Exact, s: dict[str, Exact]) -> Exact:
    return w + d


def fedavgm(w: Exact, d: Exact, s: dict[str, Exact]) -> Exact:
    s["v"] = 0.9 * s["v"] + d
    return w + 0.5 * s["v"]


def nesterov(w: Exact, d: Exact, s: dict[str, Exact]) -> Exact:
    s["v"] = 0.5 * s["v"] + d
    return w + d + 0.5 * s["v"]


def adagrad(w: Exact, d: Exact, s: dict[str, Exact]) -> Exact:
    s["v"] = s["v"] + d**2
    return w + 0.1 * d / (np.sqrt(s["v"]) + 1e-3)


def adam(w: Exact, d: Exact, s: dict[str, Exact]) -> Exact:
    s["m"] = 0.9 * s["m"] + 0.1 * d
    s["v"] = 0.99 * s["v"] + 0.01 * d**2
    return w + 0.1 * s["m"] / (np.sqrt(s["v"]) + 1e-3)


def yogi(w: Exact, d: Exact, s: dict[str, Exact]) -> Exact:
    s["m"] = 0.9 * s["m"] + 0.1 * d
    s["v"] = s["v"] - 0.01 * d**2 * np.sign(s["v"] - d**2)
    return w + 0.01 * s["m"] / (np.sqrt(s["v"]) + 1e-3)


@pytest.mark.parametrize(
    ("spec", "formula", "v"),
    zip(
        SPECS,
        (plain_sgd, fedavgm, nesterov, adagrad, adam, yogi),
        (None, 0.0, 0.0, 1e-6, 1e-6, 1e-6),
        strict=True,
    ),
)
def test_computes_its_formula(spec: str, formula: Formula, v: float | None) -> None:
    optimizer = build_server_optimizer(spec)
    models, state = drive(optimizer)
    w = start().astype(np.float64)
    exact = {"m": np.zeros(SIZE), "v": np.full(SIZE, v if v is not None else 0.0)}
    for delta, model in zip(updates(), models, strict=True):
        w = formula(w, delta.astype(np.float64), exact)
        np.testing.assert_allclose(model, w, rtol=1e-5, atol=1e-6)
    for name, vector in state.items():
        assert vector.dtype == np.float32
        tolerance = 1e-10 if name == "v" and v else 1e-7  # sums of squares never cancel
        np.testing.assert_allclose(vector, exact[name], rtol=1e-5, atol=tolerance)
    assert (v is not None) == ("v" in optimizer.init(SIZE))


def reply_of(model: Exact) -> Message:
    """Return a client's reply that holds a model, as Flower's strategies expect it."""
    act_as_server()
    question = Message(RecordDict(), dst_node_id=7, message_type="train")
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(model)}),
            "metrics": MetricRecord({"num-examples": 3}),
        }
    )
    return Message(content, reply_to=question)


def eta_of_flowers_adam(server_round: int) -> float:
    return 0.1 * float(
        np.sqrt(1 - 0.99 ** (server_round + 1)) / (1 - 0.9 ** (server_round + 1))
    )


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (FedAdagrad(eta=0.1, tau=1e-3), lambda _: Adagrad(eta=0.1, tau=1e-3)),
        (
            FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3),
            lambda server_round: Adam(eta_of_flowers_adam(server_round), 0.9, 0.99, 1e-3),
        ),
        (
            FedYogi(eta=0.05, beta_1=0.8, beta_2=0.95, tau=1e-2),
            lambda _: Yogi(eta=0.05, beta_1=0.8, beta_2=0.95, tau=1e-2),
        ),
    ],
    ids=["adagrad", "adam", "yogi"],
)
def test_flowers_adaptive_strategies_differ_in_start_and_correction_only(
    theirs: FedAdagrad | FedAdam | FedYogi, ours: Callable[[int], ServerOptimizer]
) -> None:
    model, state = start(), ours(1).init(SIZE)
    theirs.v_t = {"w": np.full(SIZE, theirs.tau**2)}  # where Flower starts at 0
    their_model = start().astype(np.float64)
    for server_round, delta in enumerate(updates(), start=1):
        theirs.current_arrays = {"w": their_model}
        arrays, _ = theirs.aggregate_train(server_round, [reply_of(their_model + delta)])
        assert arrays is not None
        their_model = arrays["w"].numpy()
        model, state = ours(server_round).apply(model, delta, state)
        np.testing.assert_allclose(model, their_model, rtol=1e-5, atol=2e-6)


def test_flowers_fedavgm_is_sgd_with_momentum() -> None:
    theirs = FedAvgM(server_learning_rate=0.5, server_momentum=0.9)
    their_model = start().astype(np.float64)
    theirs.current_arrays = ArrayRecord({"w": Array(their_model)})
    models, _ = drive(Sgd(eta=0.5, momentum=0.9))
    for server_round, (delta, model) in enumerate(zip(updates(), models, strict=True), start=1):
        arrays, _ = theirs.aggregate_train(server_round, [reply_of(their_model + delta)])
        assert arrays is not None
        their_model = arrays["w"].numpy()
        np.testing.assert_allclose(model, their_model, rtol=1e-5, atol=1e-6)


def test_default_sgd_is_federated_averaging_to_the_bit() -> None:
    model, delta = start(), updates()[0]
    found, state = Sgd().apply(model, delta.copy(), {})
    np.testing.assert_array_equal(found, model + delta)
    assert state == {}


@pytest.mark.parametrize("spec", SPECS)
def test_two_runs_give_the_same_bits(spec: str) -> None:
    (first, _), (second, _) = (drive(build_server_optimizer(spec)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("spec", SPECS)
def test_the_model_is_only_read_and_the_state_stays_in_place(spec: str) -> None:
    optimizer = build_server_optimizer(spec)
    model, state = start(), optimizer.init(SIZE)
    model.setflags(write=False)
    found, after = optimizer.apply(model, updates()[0], state)
    assert not np.shares_memory(found, model)
    assert after.keys() == state.keys()
    for name, vector in after.items():
        assert np.shares_memory(vector, state[name])
        assert not np.shares_memory(vector, found)


@pytest.mark.parametrize("spec", SPECS)
def test_needs_at_most_one_vector_more(spec: str) -> None:
    optimizer = build_server_optimizer(spec)
    size = 1_000_000
    model, delta, state = np.ones(size, np.float32), np.ones(size, np.float32), {}
    state = optimizer.init(size)
    tracemalloc.start()
    try:
        optimizer.apply(model, delta, state)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.01 * model.nbytes


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(SPECS),
    st.lists(
        hnp.arrays(np.float32, 5, elements=st.floats(-(2.0**56), 2.0**56, width=32)), max_size=5
    ),
)
def test_finite_updates_give_finite_models(spec: str, deltas: list[Vector]) -> None:
    optimizer = build_server_optimizer(spec)
    model, state = np.zeros(5, np.float32), optimizer.init(5)
    for delta in deltas:
        model, state = optimizer.apply(model, delta, state)
        assert model.dtype == np.float32
        assert np.isfinite(model).all()
        assert all(np.isfinite(vector).all() for vector in state.values())
        assert (state.get("v", model) >= 0).all() or spec.startswith("sgd")


def test_what_is_never_updated_never_moves() -> None:
    for spec in SPECS:
        optimizer = build_server_optimizer(spec)
        model, state = start(), optimizer.init(SIZE)
        for _ in range(3):
            model, state = optimizer.apply(model, np.zeros(SIZE, np.float32), state)
        np.testing.assert_array_equal(model, start())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("sgd(0.5, 0.9)", Sgd(eta=0.5, momentum=0.9)),
        ("sgd(eta=0.5, momentum=0.9, nesterov=1)", Sgd(0.5, 0.9, 1)),
        ("adagrad(tau=0.01)", Adagrad(eta=0.1, tau=0.01)),
        ("adam(0.02, beta_2=0.9)", Adam(0.02, 0.9, 0.9, 0.001)),
        ("yogi()", Yogi(0.01, 0.9, 0.99, 0.001)),
    ],
)
def test_specs(spec: str, expected: ServerOptimizer) -> None:
    found = build_server_optimizer(spec)
    assert found == expected
    assert type(found) is SERVER_OPTIMIZERS[found.name]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "position 1: a name is expected: sgd, adagrad, adam, yogi"),
        ("lamb", "position 1: unknown server optimizer 'lamb'; known are sgd, adagrad, adam"),
        ("sgd(eta=0)", r"position 1: eta = 0\.0 is not a number above 0"),
        ("sgd(eta=inf)", "eta = inf is not a number above 0"),
        ("sgd(eta=nan)", "eta = nan is not a number above 0"),
        ("sgd(momentum=1)", r"momentum = 1\.0 is not in \[0, 1\)"),
        ("sgd(momentum=0.5, nesterov=2)", "nesterov = 2 is neither 0 nor 1"),
        ("sgd(nesterov=1)", "nesterov = 1 needs a momentum above 0"),
        ("sgd(lr=0.1)", "position 5: unknown argument 'lr'; 'sgd' takes eta"),
        ("adam(tau=0)", r"tau = 0\.0 is not a number above 0"),
        ("yogi(beta_2=-0.1)", r"beta_2 = -0\.1 is not in \[0, 1\)"),
        ("adam(beta_1=x)", "position 6: beta_1 = x is not valid"),
        ("adam | sgd", "position 6: the end is expected"),
    ],
)
def test_wrong_specs_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_server_optimizer(spec)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    optimizer = Adam()
    model, state = start(), optimizer.init(SIZE)
    with pytest.raises(ModelError, match=r"update has shape \(3,\), the model \(50,\)"):
        optimizer.apply(model, np.ones(3, np.float32), state)
    with pytest.raises(ModelError, match="optimizer 'adam' has no vectors, the model needs"):
        optimizer.apply(model, updates()[0], {})
    with pytest.raises(ModelError, match=r"'m': \(3,\).*needs \{'m': \(50,\), 'v': \(50,\)\}"):
        optimizer.apply(model, updates()[0], optimizer.init(3))
    with pytest.raises(ModelError, match=r"optimizer 'sgd' has .*, the model needs none"):
        Sgd().apply(model, updates()[0], state)
    np.testing.assert_array_equal(state["m"], 0)
