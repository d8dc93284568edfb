"""A restored grid goes on as the saved one would have."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from flwr.app import ConfigRecord, Context, Message

from fl_opt.errors import CheckpointError
from fl_opt.simulation.faults import FaultPlan
from fl_opt.simulation.grid import VirtualGrid
from fl_opt.simulation.proxy import GridProxy
from tests.simulation.apps import answer, client_app, payload_of
from tests.simulation.counting import (
    A,
    B,
    Counting,
    all_faults,
    ask,
    count_in,
    grid_with,
    pull_all,
)

Blobs = dict[str, bytes]


class Federation:
    """A server that asks all clients in each round and takes whatever has come, late or not."""

    def __init__(self, faults: FaultPlan | None, count: int = 6) -> None:
        self.grid = grid_with(Counting(), faults, count)
        self.keys: list[str] = []
        self.log: list[object] = []
        self.blobs: Blobs = {}

    def run(self, *rounds: int) -> None:
        for server_round in rounds:
            nodes = self.grid.get_node_ids()[server_round % 2 :]
            messages = [ask(node_id, server_round, ttl=60.0) for node_id in nodes]
            self.keys += self.grid.push_messages(messages)
            self.take(self.keys[::2], until=3.0 * server_round)

    def take(self, keys: list[str], until: float) -> None:
        for reply in pull_all(self.grid, keys, until):
            self.note(reply)

    def note(self, reply: Message) -> None:
        data = payload_of(reply.content).data if reply.has_content() else b""
        ids = reply.metadata.message_id, reply.metadata.reply_to_message_id
        times = self.grid.clock.time(), self.grid.timing_of(reply)
        self.log.append((*ids, *times, count_in(reply), data))

    def save(self) -> None:
        """Save as a checkpoint does: what has not changed stays as it was."""
        saved = self.grid.save()
        self.blobs = {k: self.blobs[k] if v is None else v for k, v in saved.items()}

    def restored(self, faults: FaultPlan | None, count: int = 6) -> Federation:
        """A new server that goes on where this one was last saved."""
        other = Federation(faults, count)
        other.grid.restore({**self.blobs, "strategy": b"of somebody else"})
        other.keys = list(self.keys)
        return other


@pytest.mark.parametrize("faults", [None, all_faults(1), all_faults(2)])
@pytest.mark.parametrize("saved_after", [1, 4])
def test_goes_on_as_if_nothing_had_happened(faults: FaultPlan | None, saved_after: int) -> None:
    whole = Federation(faults)
    for server_round in range(1, saved_after + 1):
        whole.run(server_round)
        whole.save()
    resumed = whole.restored(faults)
    if faults is not None and saved_after == 4:  # in the middle of everything
        assert whole.grid._transport.held
        assert whole.grid._transport.travelling
        assert whole.grid._arrived
    whole.log.clear()
    for federation in (whole, resumed):
        federation.run(*range(saved_after + 1, saved_after + 5))
        federation.take(federation.keys, until=100.0)
        federation.save()
        federation.blobs.pop("grid")  # Flower notes the real time in new messages
    assert whole.log == resumed.log
    assert len(whole.log) > 20
    assert whole.grid.faults_seen == resumed.grid.faults_seen
    assert whole.blobs == resumed.blobs


def test_saving_changes_nothing() -> None:
    quiet, saved = Federation(all_faults(3)), Federation(all_faults(3))
    for server_round in range(1, 6):
        quiet.run(server_round)
        saved.run(server_round)
        saved.save()
    assert quiet.log == saved.log


def test_replies_that_nobody_asked_for_are_kept() -> None:
    grid = grid_with(Counting(), None)
    keys = grid.push_messages([ask(B), ask(A)])
    grid.clock.sleep(100.0)
    assert grid.pull_messages([]) == []
    other = grid_with(Counting(), None)
    other.restore(full(grid.save()))
    assert [reply.metadata.src_node_id for reply in other.pull_messages(keys)] == [A, B]
    assert other.pull_messages(keys) == []


def full(saved: Mapping[str, bytes | None]) -> Blobs:
    """The blobs of a first save, which all are there."""
    blobs = {name: blob for name, blob in saved.items() if blob is not None}
    assert blobs.keys() == saved.keys()
    return blobs


class TestUnchanged:
    def test_only_states_that_changed_are_given_again(self) -> None:
        grid = grid_with(Counting(), None)
        grid.send_and_receive([ask(A), ask(B)])
        assert set(full(grid.save())) == {"grid", "client-0", "client-1"}
        grid.send_and_receive([ask(B)])
        saved = grid.save()
        assert saved["client-0"] is None
        assert saved["client-1"] is not None
        assert saved["grid"] is not None
        assert {name for name, blob in grid.save().items() if blob} == {"grid"}

    def test_a_state_that_came_out_the_same_is_unchanged(self) -> None:
        def app(message: Message, context: Context) -> Message:
            context.state["kept"] = ConfigRecord({"x": float("nan"), "y": [1, 2]})
            return answer(message)

        grid = VirtualGrid(client_app(app), 1, grid_with(Counting(), None)._device_of)
        grid.send_and_receive([ask(A)])
        full(grid.save())
        grid.send_and_receive([ask(A)])
        assert grid.save()["client-0"] is None

    def test_a_restart_is_a_change(self) -> None:
        plan = FaultPlan(seed=1, restart=0.5, forget=0.5)
        later = next(r for r in range(2, 99) if plan.restarts(A, after=1, until=r))
        numbers = [n for n in range(1, 50) if not plan.happens("forget", A, n, 0)]
        assert numbers[0] == 1
        grid = grid_with(Counting(), plan)
        grid.send_and_receive([ask(A, 1)])
        grid.send_and_receive([ask(A, 1)])
        before = full(grid.save())["client-0"]
        grid.send_and_receive([ask(A, later)])
        assert grid.faults_seen["restart"] == 1
        assert grid.save()["client-0"] not in (None, before)

    def test_a_restored_grid_gives_everything_once(self) -> None:
        federation = Federation(None)
        federation.run(1, 2)
        federation.save()
        saved = federation.restored(None).grid.save()
        assert full(saved) == {**federation.blobs, "grid": saved["grid"]}


class TestRefusals:
    @pytest.fixture
    def blobs(self) -> Blobs:
        federation = Federation(None, count=2)
        federation.run(2)
        federation.save()
        return federation.blobs

    @pytest.mark.parametrize("name", ["grid", "client-1"])
    def test_a_blob_that_is_missing_or_another(self, blobs: Blobs, name: str) -> None:
        others = {key: blob for key, blob in blobs.items() if key != name}
        new = grid_with(Counting(), None, 2)
        with pytest.raises(CheckpointError, match=f"blob '{name}' is missing"):
            new.restore(others)
        with pytest.raises(CheckpointError, match=f"blob '{name}' is not of this engine"):
            new.restore({**others, name: blobs["client-0"]})
        with pytest.raises(CheckpointError):
            new.restore({**others, name: b"junk"})
        # None of this has left a trace.
        new.restore(blobs)
        assert new.clock.time() == 6.0

    def test_another_number_of_clients(self, blobs: Blobs) -> None:
        with pytest.raises(CheckpointError, match="of 2 clients, this grid has 3"):
            grid_with(Counting(), None, 3).restore(blobs)

    def test_a_used_grid(self, blobs: Blobs) -> None:
        grid = grid_with(Counting(), None, 2)
        grid.push_messages([ask(A)])
        with pytest.raises(CheckpointError, match="into a new one"):
            grid.restore(blobs)


def test_strategies_reach_it_through_a_proxy() -> None:
    grid = GridProxy(grid_with(Counting(), None))
    assert set(grid.save()) == {"grid"}
    assert grid.faults_seen == {}
