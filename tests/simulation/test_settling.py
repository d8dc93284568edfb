"""When a client runs, and when it is waited for, changes nothing that a server can see."""

from __future__ import annotations

from flwr.app import Context, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_opt.exchange.traffic import message_bytes
from fl_opt.simulation.answering import Outcome
from fl_opt.simulation.grid import VirtualGrid
from fl_opt.simulation.isolation import isolated_message, isolated_records
from fl_opt.simulation.runner import InProcessRunner, Pending, Runner
from tests.simulation.counting import DEVICE, A, B, pull_all
from tests.simulation.history import history
from tests.simulation.worker_app import app, order, said


class LateRunner(Runner):
    """Runs a client only when somebody waits for it, and notes that."""

    def __init__(self) -> None:
        self.waited: list[int] = []
        self._inner = InProcessRunner(app)

    def submit(self, message: Message, context: Context) -> Pending:
        own = isolated_message(message)
        context.state = isolated_records(context.state)

        def wait() -> Outcome:
            self.waited.append(context.node_id)
            return self._inner.submit(own, context)()

        return wait

    def close(self) -> None:
        self.waited.clear()


def make_grid() -> tuple[VirtualGrid, LateRunner]:
    runner = LateRunner()
    return VirtualGrid(runner, 3, lambda _: DEVICE), runner


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=3)
def test_any_schedule_gives_the_same(seed: int) -> None:
    assert history(LateRunner(), seed) == history(InProcessRunner(app), seed)


def test_a_client_is_waited_for_when_it_might_have_answered() -> None:
    grid, runner = make_grid()
    message = order(B, "count")
    keys = grid.push_messages([message, order(A, "count")])
    received = DEVICE.download_seconds(message_bytes(message), 0.0)
    assert grid.pull_messages(keys) == []
    grid.clock.sleep(0.9 * received)
    assert runner.waited == []
    grid.clock.sleep(0.1 * received)
    assert runner.waited == [B, A]  # in the order in which they were asked


def test_those_that_got_their_message_later_are_not_waited_for() -> None:
    grid, runner = make_grid()
    keys = grid.push_messages([order(A, "count")])
    grid.clock.sleep(0.09)
    keys += grid.push_messages([order(B, "count")])
    grid.clock.sleep(0.05)
    assert runner.waited == [A]
    assert [reply.metadata.src_node_id for reply in pull_all(grid, keys)] == [A, B]
    assert runner.waited == [A, B]


def test_a_client_does_one_thing_after_the_other() -> None:
    grid, runner = make_grid()
    keys = grid.push_messages([order(A, "count"), order(B, "count"), order(A, "count")])
    assert runner.waited == [A]
    counts = {said(r, "n") for r in pull_all(grid, keys) if r.metadata.src_node_id == A}
    assert counts == {1, 2}


def test_what_is_asked_of_the_grid_is_waited_for() -> None:
    for ask in (VirtualGrid.save, lambda grid: grid.faults_seen):
        grid, runner = make_grid()
        grid.push_messages([order(A, "count"), order(B, "count")])
        ask(grid)
        assert runner.waited == [A, B]
