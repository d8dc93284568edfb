"""What a server sees of a federation in which everything goes wrong."""

from __future__ import annotations

from fl_opt.simulation.faults import FaultPlan
from fl_opt.simulation.grid import VirtualGrid
from fl_opt.simulation.runner import Runner
from tests.simulation.apps import payload_of
from tests.simulation.counting import DEVICE, A, all_faults, pull_all
from tests.simulation.worker_app import order, said


def grid_on(runner: Runner, faults: FaultPlan | None = None, count: int = 4) -> VirtualGrid:
    """A grid of equal devices."""
    return VirtualGrid(runner, count, lambda _: DEVICE, faults=faults)


def history(runner: Runner, seed: int, *, resumed_after: int = 0) -> list[object]:
    """Five rounds: replies with their times, then the faults, then the clients' states.

    After round ``resumed_after`` another grid goes on from the first one's checkpoint.
    """
    grid = grid_on(runner, all_faults(seed), count=8)
    keys: list[str] = []
    log: list[object] = []
    for server_round in range(1, 6):
        what = ("count", "raise")[server_round % 3 == 0]
        messages = [order(n, what, server_round) for n in grid.get_node_ids()]
        keys += grid.push_messages([*messages, order(A, "count", server_round)])
        for reply in pull_all(grid, keys, until=5.0 * server_round):
            known = reply.metadata.reply_to_message_id, grid.clock.time(), grid.timing_of(reply)
            if reply.has_content():
                log.append((*known, said(reply, "n"), payload_of(reply.content).data))
            else:
                log.append((*known, reply.error.code))
        if server_round == resumed_after:
            blobs = {name: blob for name, blob in grid.save().items() if blob is not None}
            grid = grid_on(runner, all_faults(seed), count=8)
            grid.restore(blobs)
    states = {name: blob for name, blob in grid.save().items() if name != "grid"}
    return [*log, dict(grid.faults_seen), states]
