"""Feedback as pure functions: nothing is lost, and each rule is the one that is written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fl_opt.codecs import DenseUpdate, SparseUpdate, Update, build_codec, decode
from fl_opt.errors import ConfigError
from fl_opt.exchange.feedback import (
    FEEDBACKS,
    Dgc,
    Feedback,
    NoFeedback,
    Residual,
    State,
    StepAhead,
    build_feedback,
)
from fl_opt.exchange.feedback.cafe import Cafe

Vector = NDArray[np.float32]
SIZE = 24
CODECS = ("topk(0.1)", "topk(0.25) | ternary", "topk(0.5) | uniform(4)", "int4", "none")
# Sums of a few of these stay far from the limits of float32.
numbers = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
rounds = st.lists(arrays(np.float32, SIZE, elements=numbers), min_size=1, max_size=6)


def send(codec: str, vector: Vector, seed: int = 0) -> Update:
    return decode(build_codec(codec).encode(vector, seed=seed), size=vector.size)


def step(
    feedback: Feedback, codec: str, delta: Vector, state: State, participants: int = 0
) -> tuple[Vector, State]:
    """One round; the state kept before it must not change. Returns what was sent, dense."""
    kept = {name: vector.copy() for name, vector in state.items()}
    for vector in state.values():
        vector.flags.writeable = False
    vector, moved = feedback.before(delta.copy(), state, participants=participants)
    sent = send(codec, vector)
    after = feedback.after(vector, sent, moved)
    assert set(after) == set(feedback.arrays)
    assert all(v.dtype == np.float32 and v.shape == delta.shape for v in after.values())
    for name, before in kept.items():
        np.testing.assert_array_equal(state[name], before)
    return sent.to_dense(), after


def tolerance(deltas: Sequence[Vector]) -> float:
    """What rounding may add up to: some units in the last place of all that went through."""
    largest = sum(float(np.abs(delta).max()) for delta in deltas)
    return 4 * float(np.finfo(np.float32).eps) * largest * SIZE


# --- residual


@given(rounds, st.sampled_from(CODECS))
def test_residual_conserves_mass(deltas: list[Vector], codec: str) -> None:
    """Sum of what was sent + residual = sum of what was learned."""
    state: State = {}
    applied = np.zeros(SIZE)
    for delta in deltas:
        sent, state = step(Residual(), codec, delta, state)
        applied += sent
    learned = np.sum(deltas, axis=0, dtype=np.float64)
    np.testing.assert_allclose(
        applied + state["residual"], learned, rtol=0, atol=tolerance(deltas)
    )


@given(rounds, st.sampled_from(CODECS), st.sampled_from([0.25, 0.5, 0.875]))
def test_a_decayed_residual_is_sparseloco(
    deltas: list[Vector], codec: str, decay: float
) -> None:
    """``e = decay e + delta; send C(e); e = e - C(e)`` (SparseLoCo) sends the same."""
    state: State = {}
    accumulator = np.zeros(SIZE, np.float32)
    for delta in deltas:
        accumulator = np.float32(decay) * accumulator + delta
        expected = send(codec, accumulator).to_dense()
        accumulator = accumulator - expected
        sent, state = step(Residual(decay), codec, delta, state)
        np.testing.assert_array_equal(sent, expected)
    np.testing.assert_array_equal(state["residual"], np.float32(decay) * accumulator)


def test_a_decayed_residual_dies_away() -> None:
    state: State = {"residual": np.full(SIZE, 8.0, np.float32)}
    nothing = SparseUpdate(SIZE, np.empty(0, np.int64), np.empty(0, np.float32))
    for expected in (4.0, 2.0, 1.0):
        vector, moved = Residual(0.5).before(np.zeros(SIZE, np.float32), state)
        state = Residual(0.5).after(vector, nothing, moved)
        np.testing.assert_array_equal(state["residual"], np.full(SIZE, expected))


def test_plain_residual_works_in_the_memory_of_the_update() -> None:
    """No pass over memory beyond one addition and one subtraction."""
    delta = np.ones(SIZE, np.float32)
    vector, moved = Residual().before(delta, {"residual": np.ones(SIZE, np.float32)})
    kept = Residual().after(vector, send("topk(0.1)", vector), moved)
    assert vector is delta
    assert kept["residual"] is delta


def test_without_feedback_everything_passes_through() -> None:
    delta = np.arange(SIZE, dtype=np.float32)
    vector, moved = NoFeedback().before(delta, {})
    assert vector is delta
    assert moved == NoFeedback().after(vector, DenseUpdate(delta), moved) == {}


# --- step ahead


def local_training(start: Vector, goal: Vector) -> Vector:
    """What a client makes of the model it starts from: nonlinear, so that the start matters."""
    trained: Vector = start + np.tanh(goal - start)
    return trained


@given(rounds, st.sampled_from(CODECS), st.floats(0, 1, width=32))
def test_step_ahead_is_the_papers_rule_and_conserves_mass(
    goals: list[Vector], codec: str, alpha: float
) -> None:
    """Paper: ``u = (trained - w) + (1 - alpha) e``; also learned + e = sent + new e."""
    feedback = StepAhead(alpha)
    state: State = {}
    model = np.zeros(SIZE, np.float32)
    bound = tolerance([*goals, np.ones(SIZE, np.float32)])
    for goal in goals:
        residual = state.get("residual", np.zeros(SIZE, np.float32)).astype(np.float64)
        start = feedback.start(model, state)
        np.testing.assert_allclose(start, model + alpha * residual, rtol=0, atol=bound)
        trained = local_training(start, goal)
        sent, state = step(feedback, codec, trained - start, state)
        as_written = (trained.astype(np.float64) - model) + (1 - alpha) * residual
        np.testing.assert_allclose(sent + state["residual"], as_written, rtol=0, atol=bound)
        learned = trained.astype(np.float64) - start
        np.testing.assert_allclose(
            sent + state["residual"], learned + residual, rtol=0, atol=bound
        )
        model = model + sent


@given(rounds, st.sampled_from(CODECS))
def test_no_step_ahead_is_plain_error_feedback(goals: list[Vector], codec: str) -> None:
    ahead: State = {}
    plain: State = {}
    model = np.zeros(SIZE, np.float32)
    for goal in goals:
        start = StepAhead(0.0).start(model, ahead)
        np.testing.assert_array_equal(start, model)
        delta = local_training(start, goal) - start
        sent, ahead = step(StepAhead(0.0), codec, delta, ahead)
        expected, plain = step(Residual(), codec, delta, plain)
        np.testing.assert_array_equal(sent, expected)
        model = model + sent


def test_a_client_that_learns_nothing_moves_nothing_by_starting_ahead() -> None:
    """Rounding of the start is no update: what is sent and kept is the residual, to the bit."""
    generator = np.random.default_rng(0)
    model = generator.normal(size=SIZE).astype(np.float32)
    residual = generator.normal(scale=1e-4, size=SIZE).astype(np.float32)
    start = StepAhead(0.3).start(model, {"residual": residual})
    assert np.any(start != model)
    vector, _ = StepAhead(0.3).before(start - start, {"residual": residual})
    np.testing.assert_array_equal(vector, residual)


def test_only_step_ahead_starts_elsewhere() -> None:
    model, residual = np.ones(SIZE, np.float32), np.full(SIZE, 2.0, np.float32)
    for kind in FEEDBACKS.values():
        feedback = kind()
        state = dict.fromkeys(feedback.arrays, residual)
        assert feedback.start(model, {}) is model
        start = feedback.start(model, state)
        assert (start is model) is (kind is not StepAhead)
    np.testing.assert_array_equal(StepAhead(0.25).start(model, {"residual": residual}), 1.5)


# --- DGC


def dgc_step_by_step(
    deltas: Sequence[Vector], codec: str, momentum: float
) -> tuple[list[Vector], list[float], list[float]]:
    """Algorithm 4 of the paper, entry by entry; which entries are sent, the codec says."""
    u, v = [0.0] * SIZE, [0.0] * SIZE
    sent_in_rounds = []
    for delta in deltas:
        for i in range(SIZE):
            u[i] = float(np.float32(np.float32(momentum) * np.float32(u[i])) + delta[i])
            v[i] = float(np.float32(v[i]) + np.float32(u[i]))
        update = send(codec, np.array(v, np.float32))
        assert isinstance(update, SparseUpdate)
        for i in update.positions:
            u[i] = v[i] = 0.0
        sent_in_rounds.append(update.to_dense())
    return sent_in_rounds, u, v


@given(
    rounds,
    st.sampled_from(["topk(0.1)", "topk(0.25) | ternary", "topk(0.5) | uniform(4)"]),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_dgc_is_the_papers_algorithm_step_by_step(
    deltas: list[Vector], codec: str, momentum: float
) -> None:
    expected, u, v = dgc_step_by_step(deltas, codec, momentum)
    state: State = {}
    for delta, sent_expected in zip(deltas, expected, strict=True):
        vector, moved = Dgc(momentum).before(delta.copy(), state)
        sent = send(codec, vector)
        assert isinstance(sent, SparseUpdate)
        state = Dgc(momentum).after(vector, sent, moved)
        np.testing.assert_array_equal(sent.to_dense(), sent_expected)
        assert not state["momentum"][sent.positions].any()
        assert not state["velocity"][sent.positions].any()
    np.testing.assert_array_equal(state["momentum"], np.array(u, np.float32))
    np.testing.assert_array_equal(state["velocity"], np.array(v, np.float32))


@given(rounds, st.sampled_from([0.0, 0.5, 0.9]))
def test_dgc_that_sends_everything_is_momentum_sgd(
    deltas: list[Vector], momentum: float
) -> None:
    state: State = {}
    u = np.zeros(SIZE, np.float32)
    for delta in deltas:
        u = u * np.float32(momentum) + delta
        sent, state = step(Dgc(momentum), "none", delta, state)
        np.testing.assert_array_equal(sent, u)
        assert not state["velocity"].any()


def test_dgc_at_full_density_is_momentum_sgd_too() -> None:
    deltas = np.random.default_rng(3).normal(size=(5, SIZE)).astype(np.float32)
    state: State = {}
    u = np.zeros(SIZE, np.float32)
    for delta in deltas:
        u = u * np.float32(0.9) + delta
        sent, state = step(Dgc(0.9), "topk(1.0)", delta, state)
        np.testing.assert_array_equal(sent, u)


@given(rounds, st.sampled_from(CODECS[:3]))
def test_dgc_without_momentum_and_quantization_is_error_feedback(
    deltas: list[Vector], codec: str
) -> None:
    codec = codec.partition(" |")[0]
    dgc: State = {}
    residual: State = {}
    for delta in deltas:
        sent, dgc = step(Dgc(momentum=0.0), codec, delta, dgc)
        expected, residual = step(Residual(), codec, delta, residual)
        np.testing.assert_array_equal(sent, expected)
        np.testing.assert_array_equal(dgc["velocity"], residual["residual"])


def test_dgc_masks_where_an_update_of_another_kind_carries_something() -> None:
    class Mixed:
        """Sparse in part: neither a SparseUpdate nor complete."""

        size, count = SIZE, 2

        def to_dense(self) -> Vector:
            dense = np.zeros(SIZE, np.float32)
            dense[[3, 5]] = 1.0
            return dense

        def add_to(self, accumulator: NDArray[np.floating], weight: float = 1.0) -> None:
            raise AssertionError

        def norm(self) -> float:
            raise AssertionError

    vector, moved = Dgc().before(np.ones(SIZE, np.float32), {})
    state = Dgc().after(vector, Mixed(), moved)
    for kept in state.values():
        assert np.flatnonzero(kept == 0).tolist() == [3, 5]


@given(
    arrays(np.float32, SIZE, elements=numbers),
    st.floats(0.125, 1e3, width=32),
    st.integers(0, 50),
)
def test_dgc_clips_the_share_of_the_mean(delta: Vector, clip: float, participants: int) -> None:
    """Paper: ``g / N`` has at most ``N^-1/2`` of the threshold."""
    clipped, _ = Dgc(clip=clip).before(delta.copy(), {}, participants=participants)
    n = max(1, participants)
    norm = float(np.linalg.norm(delta.astype(np.float64)))
    share = float(np.linalg.norm(clipped.astype(np.float64))) / n
    limit = clip / math.sqrt(n)
    assert share <= limit * (1 + 1e-6)
    if norm / n <= limit:
        np.testing.assert_array_equal(clipped, delta)
    else:
        assert share == pytest.approx(limit, rel=1e-5)
        np.testing.assert_allclose(clipped, delta * (share * n / norm), rtol=1e-5, atol=1e-9)


def test_clipped_updates_of_independent_clients_meet_the_threshold_together() -> None:
    generator = np.random.default_rng(1)
    deltas = 100 * generator.normal(size=(64, 1000)).astype(np.float32)
    clipped = [Dgc(clip=2.0).before(d, {}, participants=64)[0] for d in deltas]
    assert float(np.linalg.norm(np.mean(clipped, axis=0))) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_clipping_leaves_what_is_not_finite_for_the_codec_to_name(bad: float) -> None:
    delta = np.ones(SIZE, np.float32)
    delta[7] = bad
    clipped, _ = Dgc(clip=0.5).before(delta.copy(), {})
    np.testing.assert_array_equal(clipped, delta)


# --- all kinds, and their specs


@pytest.mark.parametrize("name", FEEDBACKS)
def test_every_kind_takes_a_model_without_entries(name: str) -> None:
    feedback = build_feedback(name)
    empty = np.empty(0, np.float32)
    vector, moved = feedback.before(empty, {})
    assert set(feedback.after(vector, DenseUpdate(empty), moved)) == set(feedback.arrays)


def test_specs_are_names_with_arguments() -> None:
    assert build_feedback("none") == NoFeedback()
    assert build_feedback(" residual ") == Residual(1.0)
    assert build_feedback("residual(decay=0.9)") == Residual(0.9)
    assert build_feedback("step_ahead(0.85)") == StepAhead(0.85)
    assert build_feedback("dgc(momentum=0.5, clip=2)") == Dgc(0.5, 2.0)
    assert set(FEEDBACKS) == {"none", "residual", "step_ahead", "dgc"}


@pytest.mark.parametrize(
    ("spec", "position", "reason"),
    [
        ("", 1, "a name is expected: none, residual, step_ahead, dgc"),
        ("residul", 1, "unknown feedback 'residul'; known are none, residual, step_ahead, dgc"),
        ("true", 1, "unknown feedback 'true'"),
        ("none(1)", 6, "too many arguments; 'none' takes no arguments"),
        ("residual(0)", 1, r"decay = 0.0 is not in \(0, 1\]"),
        ("residual(1.5)", 1, r"decay = 1.5 is not in \(0, 1\]"),
        ("residual(nan)", 1, r"decay = nan is not in \(0, 1\]"),
        (
            "residual(beta=0.9)",
            10,
            r"unknown argument 'beta'; 'residual' takes decay \(float\)",
        ),
        ("residual | dgc", 10, "the end is expected"),
        ("step_ahead(2)", 1, r"alpha = 2.0 is not in \[0, 1\]"),
        ("dgc(1)", 1, r"momentum = 1.0 is not in \[0, 1\)"),
        ("dgc(0.9, -1)", 1, "clip = -1.0 is not a number from 0 up"),
        ("dgc(clip=inf)", 1, "clip = inf is not"),
        ("dgc(0.9", 8, r"'\)' or ',' is expected"),
    ],
)
def test_bad_specs_name_position_and_reason(spec: str, position: int, reason: str) -> None:
    expected = f"feedback spec '.*', position {position}: {reason}"
    with pytest.raises(ConfigError, match=expected) as caught:
        build_feedback(spec)
    assert repr(spec) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- updates that were not accepted


class TestTakeBack:
    @given(arrays(np.float32, SIZE, elements=numbers), rounds, st.sampled_from(CODECS))
    def test_a_residual_is_what_it_would_be_had_nothing_been_sent(
        self, delta: Vector, deltas: list[Vector], codec: str
    ) -> None:
        for feedback in (Residual(), Residual(0.5), StepAhead(0.5)):
            state: State = {}
            for earlier in deltas:
                _, state = step(feedback, codec, earlier, state)
            vector, moved = feedback.before(delta.copy(), state)
            kept_back = vector.copy()
            sent = send(codec, vector)
            after = {k: v.copy() for k, v in feedback.after(vector, sent, moved).items()}
            before = {k: v.copy() for k, v in after.items()}
            back = feedback.take_back(sent, after)
            decay = feedback.decay if isinstance(feedback, Residual) else 1.0
            np.testing.assert_allclose(
                back["residual"],
                np.float32(decay) * kept_back,
                rtol=0,
                atol=tolerance([*deltas, delta]),
            )
            for name, kept in before.items():  # the state that is kept was only read
                np.testing.assert_array_equal(after[name], kept)

    def test_dgc_returns_the_velocity_and_leaves_the_momentum_masked(self) -> None:
        delta = np.arange(1, SIZE + 1, dtype=np.float32)
        sent, state = step(Dgc(0.5), "topk(0.25)", delta, {})
        update = send("topk(0.25)", delta)
        back = Dgc(0.5).take_back(update, state)
        np.testing.assert_array_equal(back["velocity"], delta)
        np.testing.assert_array_equal(back["momentum"], state["momentum"])
        assert np.count_nonzero(back["momentum"]) == SIZE - np.count_nonzero(sent)

    @pytest.mark.parametrize("feedback", [Residual(), StepAhead(), Dgc()])
    def test_without_a_state_the_update_itself_is_kept(self, feedback: Feedback) -> None:
        """As after a change of the kind of feedback."""
        update = send("topk(0.25)", np.arange(SIZE, dtype=np.float32))
        back = feedback.take_back(update, {})
        assert set(back) == set(feedback.arrays)
        np.testing.assert_array_equal(back[feedback.unsent], update.to_dense())
        vector, _ = feedback.before(np.zeros(SIZE, np.float32), back)
        np.testing.assert_array_equal(vector, update.to_dense())

    def test_kinds_that_keep_nothing_take_nothing_back(self) -> None:
        update = send("topk(0.25)", np.arange(SIZE, dtype=np.float32))
        assert NoFeedback().take_back(update, {}) == {}
        assert Cafe().take_back(update, {"prediction": np.ones(SIZE, np.float32)}) == {}

    def test_every_kind_says_what_it_has_not_sent(self) -> None:
        for kind in FEEDBACKS.values():
            assert kind.unsent in (*kind.arrays, "")
            assert bool(kind.unsent) == bool(kind.arrays)
