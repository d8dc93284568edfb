"""What all policies promise, driven by one table of specs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_opt.errors import CheckpointError
from strategies.selection import SELECTIONS, Report, Selection, build_selection
from tests.strategies.selection.reports import checkpointed, failed, tell, used

SPECS = (
    "uniform",
    "power-of-choice",
    "power-of-choice(candidates=3)",
    "oort",
    "oort(exploration=0.3, pace_window=2, max_updates=2)",
    "tiers",
    "tiers(tiers=3, credits=1)",
    "importance",
    "round-robin",
    "available",
    "available(longest=4) | oort",
    "available | tiers",
)
NODES = (0, 1, 2, 17, 99, 1234, 2**31, 2**53 + 1, 2**63, 2**64 - 1)

numbers = st.none() | st.floats() | st.floats(0.0, 10.0)
report_lists = st.lists(
    st.builds(
        Report,
        node_id=st.sampled_from(NODES),
        server_round=st.integers(1, 12) | st.integers(1, 2**31),
        seconds=st.floats(0.0, allow_nan=False),
        used=st.booleans(),
        num_examples=st.integers(0, 100) | st.integers(0, 10**40),
        loss=numbers,
        update_norm=st.none() | st.floats(0.0),
    ),
    max_size=30,
)
node_sets = st.lists(st.sampled_from(NODES), unique=True)


@dataclass
class Case:
    spec: str
    reports: list[Report]
    nodes: list[int]
    count: int
    server_round: int
    rng: random.Random


cases = st.builds(
    Case,
    spec=st.sampled_from(SPECS),
    reports=report_lists,
    nodes=node_sets,
    count=st.integers(0, 12),
    server_round=st.integers(1, 40),
    rng=st.randoms(use_true_random=False),
)


def test_the_table_has_every_policy() -> None:
    assert {spec.partition("(")[0].partition(" ")[0] for spec in SPECS} == SELECTIONS.keys()


@given(cases)
def test_chooses_distinct_nodes_whatever_was_reported(case: Case) -> None:
    selection, nodes, count = build_selection(case.spec, seed=3), case.nodes, case.count
    tell(selection, case.reports)
    before = selection.state()
    chosen = selection.select(nodes, count, case.server_round)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(nodes)
    assert len(chosen) == min(count, len(nodes))
    # Neither the order of the nodes nor an earlier choice makes a difference.
    case.rng.shuffle(nodes)
    assert selection.select(tuple(nodes), count, case.server_round) == chosen
    assert selection.state() == before


@given(cases)
def test_goes_on_from_a_checkpoint_as_if_nothing_had_happened(case: Case) -> None:
    selection = build_selection(case.spec, seed=3)
    half = case.rng.randint(0, len(case.reports))
    tell(selection, case.reports[:half])
    resumed = build_selection(case.spec, seed=3)
    tell(resumed, [used(5, loss=1.0), failed(NODES[0])])  # is forgotten
    checkpointed(selection, resumed)
    assert resumed.state() == selection.state()
    for one in (selection, resumed):
        tell(one, case.reports[half:])
    assert resumed.state() == selection.state()
    arguments = (case.nodes, case.count, case.server_round)
    assert resumed.select(*arguments) == selection.select(*arguments)


def measured(node_id: int, server_round: int) -> Report:
    return used(
        node_id,
        server_round,
        seconds=1.0 + node_id % 7,
        num_examples=1 + node_id % 50,
        loss=5.0 / server_round + node_id % 3,
        update_norm=0.1 + node_id % 5,
    )


def silent(node_id: int, server_round: int) -> Report:
    return Report(node_id, server_round, 0.0, used=True)


def unreliable(node_id: int, server_round: int) -> Report:
    dead = node_id % 3 == 0
    return failed(node_id, server_round, 60.0) if dead else measured(node_id, server_round)


@pytest.mark.parametrize("behaviour", [measured, silent, unreliable])
@pytest.mark.parametrize("spec", SPECS)
def test_everybody_is_asked_in_the_end(
    spec: str, behaviour: Callable[[int, int], Report]
) -> None:
    selection = build_selection(spec, seed=1)
    never_asked = set(range(30))
    for server_round in range(1, 200):
        chosen = selection.select(range(30), 3, server_round)
        never_asked -= set(chosen)
        if not never_asked:
            return
        tell(selection, [behaviour(node_id, server_round) for node_id in chosen])
    raise AssertionError(f"never asked: {never_asked}")


@pytest.mark.parametrize("spec", SPECS)
def test_seed_and_round_make_a_difference(spec: str) -> None:
    def choose(seed: int, server_round: int) -> list[int]:
        return build_selection(spec, seed).select(range(1000), 10, server_round)

    assert choose(1, 1) == choose(1, 1)
    assert len({tuple(choose(seed, r)) for seed in (1, 2) for r in (1, 2)}) == 4


def ten_thousand(spec: str) -> tuple[Selection, list[int]]:
    rng = random.Random(5)  # noqa: S311
    nodes = [rng.getrandbits(64) for _ in range(10_000)]
    selection = build_selection(spec, seed=1)
    tell(selection, [unreliable(node_id, 1) for node_id in nodes[:9_000]])
    return selection, nodes


@pytest.mark.parametrize("spec", ["uniform", "power-of-choice", "available | oort", "tiers"])
def test_chooses_among_ten_thousand_at_once(spec: str) -> None:
    selection, nodes = ten_thousand(spec)
    times = []
    for server_round in range(2, 7):
        begin = time.process_time()
        assert len(selection.select(nodes, 500, server_round)) == 500
        times.append(time.process_time() - begin)
    assert min(times) < 0.1  # milliseconds; a square number of steps would take seconds


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec != "uniform"])
def test_a_state_of_something_else_is_refused(spec: str) -> None:
    selection = build_selection(spec, seed=1)
    with pytest.raises(CheckpointError, match="damaged"):
        selection.restore({})
