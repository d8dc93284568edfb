"""Short ways to report and to ask, for tests of selections."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from strategies.selection import Report, Selection


def used(
    node_id: int,
    server_round: int = 1,
    *,
    seconds: float = 1.0,
    num_examples: int = 10,
    loss: float | None = None,
    update_norm: float | None = None,
) -> Report:
    return Report(node_id, server_round, seconds, True, num_examples, loss, update_norm)


def failed(node_id: int, server_round: int = 1, seconds: float = 1.0) -> Report:
    return Report(node_id, server_round, seconds, used=False)


def tell(selection: Selection, reports: Iterable[Report]) -> None:
    for report in reports:
        selection.observe(report)


def frequencies(
    selection: Selection, nodes: Sequence[int], count: int, rounds: int, first: int = 1
) -> dict[int, float]:
    """How often each node is chosen, as a share of the rounds, if nothing is learned."""
    chosen: Counter[int] = Counter()
    for server_round in range(first, first + rounds):
        chosen.update(selection.select(nodes, count, server_round))
    return {node_id: chosen[node_id] / rounds for node_id in nodes}


def checkpointed(selection: Selection, fresh: Selection) -> Selection:
    """Go on with a new object from the state, as strict JSON that went through a file."""
    fresh.restore(json.loads(json.dumps(selection.state(), allow_nan=False)))
    return fresh
