from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fl_opt.seeds import derive_seed

WORDS = st.integers(0, 2**32 - 1)


def test_value_is_pinned_so_that_old_runs_can_be_repeated() -> None:
    assert derive_seed(42, "train", 3, 7) == 154264904944565874


@given(WORDS, st.text(max_size=10), st.lists(WORDS, max_size=3))
def test_fits_numpy_and_torch(seed: int, purpose: str, place: list[int]) -> None:
    assert 0 <= derive_seed(seed, purpose, *place) < 2**63


def test_every_word_matters() -> None:
    seeds = {
        derive_seed(seed, purpose, partition, server_round)
        for seed in range(5)
        for purpose in ("train", "validation")
        for partition in range(10)
        for server_round in range(10)
    }
    assert len(seeds) == 5 * 2 * 10 * 10


def test_a_longer_place_differs_from_a_shorter_one_filled_with_zeros() -> None:
    assert derive_seed(42, "train", 1) != derive_seed(42, "train", 1, 0)
