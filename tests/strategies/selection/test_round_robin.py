"""Everybody in turn."""

from __future__ import annotations

from collections import Counter

from strategies.selection import build_selection
from tests.strategies.selection.reports import failed, frequencies, tell, used


def test_requests_never_differ_by_more_than_one() -> None:
    selection = build_selection("round-robin", seed=1)
    requests: Counter[int] = Counter(dict.fromkeys(range(10), 0))
    for server_round in range(1, 25):
        chosen = selection.select(range(10), 4, server_round)
        requests.update(chosen)
        tell(selection, [failed(node) if node % 2 else used(node) for node in chosen])
        assert max(requests.values()) - min(requests.values()) <= 1


def test_ties_are_settled_by_chance() -> None:
    selection = build_selection("round-robin", seed=1)
    selection.observe(used(0))
    shares = frequencies(selection, range(5), 2, 400)
    assert shares[0] == 0.0
    assert all(0.42 < shares[node] < 0.58 for node in range(1, 5))
