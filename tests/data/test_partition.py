from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_opt.data.examples import Examples, TaskInfo
from fl_opt.data.partition import PartitionSpec, parse_partition, partition
from fl_opt.data.source import Source
from fl_opt.errors import ConfigError, DataError

INFO = TaskInfo("tabular", (1,), 10)


def source_of(
    classes: NDArray[np.int64] | None, owners: NDArray[np.int64] | None = None
) -> Source:
    column = classes if classes is not None else owners
    assert column is not None
    examples = Examples(torch.zeros(len(column), 1), torch.zeros(len(column)))
    return Source(INFO, examples, examples, classes, owners)


def balanced(count: int) -> Source:
    return source_of(np.arange(count) % 10)


def shuffled(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(3).permutation(count)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("iid", PartitionSpec("iid")),
        (" natural ", PartitionSpec("natural")),
        ("dirichlet(0.5)", PartitionSpec("dirichlet", 0.5)),
        ("dirichlet( 1e2 )", PartitionSpec("dirichlet", 100.0)),
        ("pathological(2)", PartitionSpec("pathological", 2.0)),
    ],
)
def test_parses(text: str, spec: PartitionSpec) -> None:
    assert parse_partition(text) == spec


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected one of iid, dirichlet"),
        ("dirichlets(1)", "not 'dirichlets' at position 0"),
        ("iid(3)", "iid takes no argument at position 3"),
        ("dirichlet", r"expected dirichlet\(alpha\) at position 9"),
        ("dirichlet(0.5", r"expected dirichlet\(alpha\) at position 10"),
        ("dirichlet(0.5) x", r"expected dirichlet\(alpha\) at position 10"),
        ("dirichlet(a)", "expected a number, not 'a' at position 10"),
        ("dirichlet(0)", "alpha must be above 0, not 0 at position 10"),
        ("dirichlet(nan)", "alpha must be above 0"),
        ("dirichlet(inf)", "alpha must be above 0"),
        ("pathological(1.5)", "whole number, not 1.5 at position 13"),
    ],
)
def test_a_wrong_text_is_refused_at_its_position(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_partition(text)
    assert str(caught.value).startswith(f"data.partition = {text!r}: ")


@settings(max_examples=25, deadline=None)
@given(
    text=st.sampled_from(["iid", "dirichlet(1)", "pathological(10)", "natural"]),
    num_clients=st.integers(1, 12),
    count=st.integers(240, 400),
)
def test_every_example_goes_to_exactly_one_client(
    text: str, num_clients: int, count: int
) -> None:
    owners = np.sort(np.random.default_rng(count).integers(40, size=count))
    source = source_of(np.arange(count) % 10, owners)
    rows = shuffled(count)[:235]
    parts = partition(source, rows, text, num_clients, seed=5)
    assert len(parts) == num_clients
    assert sorted(np.concatenate(parts).tolist()) == sorted(rows.tolist())


def test_iid_parts_are_equal_in_size_and_mixed() -> None:
    source = source_of(np.sort(np.arange(1000) % 10))
    parts = partition(source, shuffled(1000), "iid", 10, seed=1)
    assert {len(part) for part in parts} == {100}
    for part in parts:
        counts = np.bincount(np.sort(np.arange(1000) % 10)[part], minlength=10)
        assert counts.min() > 0


def test_smaller_alpha_makes_clients_differ_more() -> None:
    source = balanced(5000)

    def skew(text: str) -> float:
        """Mean share of a client's commonest class."""
        parts = partition(source, shuffled(5000), text, 10, seed=1)
        shares = [np.bincount(part % 10, minlength=10).max() / len(part) for part in parts]
        return float(np.mean(shares))

    assert skew("dirichlet(1000)") < 0.2 < skew("dirichlet(1)") < skew("dirichlet(0.1)")


def test_pathological_clients_have_so_many_classes() -> None:
    parts = partition(balanced(2000), shuffled(2000), "pathological(2)", 20, seed=1)
    assert {len(np.unique(part % 10)) for part in parts} == {2}
    assert len(np.concatenate(parts)) == 2000


def test_natural_clients_are_runs_of_owners() -> None:
    owners = np.repeat(np.arange(7), 5)
    parts = partition(source_of(None, owners), shuffled(35), "natural", 3, seed=1)
    assert [sorted(set(owners[part].tolist())) for part in parts] == [[0, 1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("text", ["dirichlet(0.5)", "pathological(3)"])
def test_seed_decides(text: str) -> None:
    source, rows = balanced(1000), shuffled(1000)
    first, again, other = (partition(source, rows, text, 8, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_asking_for_what_the_data_lacks() -> None:
    rows = shuffled(50)
    with pytest.raises(ConfigError, match="belong to nobody; use iid"):
        partition(balanced(50), rows, "natural", 2, seed=1)
    text = source_of(None, np.arange(50) % 5)
    with pytest.raises(ConfigError, match="have no class; use iid or natural"):
        partition(text, rows, "dirichlet(1)", 2, seed=1)
    with pytest.raises(ConfigError, match=r"pathological\(11\).*only 10 classes"):
        partition(balanced(50), rows, "pathological(11)", 2, seed=1)


def test_too_little_data() -> None:
    with pytest.raises(DataError, match="9 training examples are too few for 10 clients"):
        partition(balanced(9), shuffled(9), "iid", 10, seed=1)
    owners = np.arange(50) % 5
    with pytest.raises(DataError, match="5 natural owners are too few for 6 clients"):
        partition(source_of(None, owners), shuffled(50), "natural", 6, seed=1)
    with pytest.raises(DataError, match=r"dirichlet\(0.001\).*20 examples among 20 clients"):
        partition(balanced(20), shuffled(20), "dirichlet(0.001)", 20, seed=1)
    with pytest.raises(DataError, match=r"pathological\(9\).*cannot divide 20 examples"):
        partition(balanced(20), shuffled(20), "pathological(9)", 20, seed=1)


@pytest.mark.parametrize("text", ["iid", "dirichlet(0.3)", "pathological(2)"])
def test_quiet_and_quick_on_many_examples(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    source, rows = balanced(60_000), shuffled(60_000)
    partition(balanced(100), shuffled(100), "iid", 2, seed=1)  # imports flwr-datasets
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        partition(source, rows, text, 100, seed=1)
    assert time.process_time() - start < 3.0
    assert capfd.readouterr() == ("", "")
