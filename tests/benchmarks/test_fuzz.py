"""The fuzzer's targets: real inputs are read, and wrong ones refused as they may be."""

from __future__ import annotations

import pytest

from benchmarks.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_corpus_starts_from_is_read(name: str) -> None:
    target = TARGETS[name]
    seeds = list(target.seeds())
    assert seeds
    for seed in seeds:
        target.read(seed)


@pytest.mark.parametrize("name", ["decode", "spec", "run-config", "record"])
def test_nonsense_is_refused_as_it_may_be(name: str) -> None:
    target = TARGETS[name]
    with pytest.raises(target.refuses):
        target.read(b"\xff{nonsense = [\x00\n")
