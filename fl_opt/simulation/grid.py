"""A Flower Grid in one process, whose network and devices are simulated.

Clients really train and messages really carry their payloads; only time is made up. A
message to a client and its reply take::

    latency + bytes down / downlink  +  samples / speed  +  latency + bytes up / uplink

on the grid's clock, with the sizes of the real messages and the number of samples that the
client says it processed. A device does one thing after the other: a message to a busy one
waits.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeAlias, cast
from weakref import WeakKeyDictionary

from flwr.app import Message, RecordDict
from flwr.app.user_config import UserConfigValue
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fl_opt.errors import CheckpointError
from fl_opt.simulation.answering import CallableClientApp
from fl_opt.simulation.client import VirtualClient
from fl_opt.simulation.clock import VirtualClock
from fl_opt.simulation.devices import Device, DeviceModel
from fl_opt.simulation.faults import FaultPlan
from fl_opt.simulation.identity import VIRTUAL_RUN_ID, act_as_server
from fl_opt.simulation.runner import Runner, as_runner
from fl_opt.simulation.snapshot import (
    GRID_BLOB,
    ClientClock,
    GridSnapshot,
    client_blob,
    state_from_bytes,
    state_to_bytes,
)
from fl_opt.simulation.transit import Delivery, LinkTiming, message_id
from fl_opt.simulation.transport import Transport

logger = logging.getLogger(__name__)

FIRST_NODE_ID = 1000
"""Node id of partition 0; far from 1, which is the SuperLink's."""

_Place: TypeAlias = tuple[float, int, int, int, LinkTiming]

_LONG = 1e9  # seconds; ends at the next event


class VirtualGrid(Grid):
    """Runs a ClientApp for every node on this machine, on a virtual clock.

    Clients begin to work when messages are pushed to them; their replies can be pulled once
    the clock has reached their arrival. A message without a reply within its time to live is
    answered by an error then, as by a SuperLink. Same inputs give the same replies in the same
    order at the same times, in however many processes clients run.

    Parameters
    ----------
    client_app : ClientApp or Runner
        An app runs in this process, a :class:`~fl_opt.simulation.pool.WorkerPool` in others.
    num_supernodes : int
        Number of clients. They cost next to nothing until they get a message.
    devices : DeviceModel
        The device of each client, by partition id.
    run_config : mapping, optional
        Handed to clients as ``context.run_config``.
    clock : VirtualClock, optional
        A new one by default.
    faults : FaultPlan, optional
        What goes wrong; nothing by default.
    """

    def __init__(
        self,
        client_app: CallableClientApp | Runner,
        num_supernodes: int,
        devices: DeviceModel,
        *,
        run_config: Mapping[str, UserConfigValue] | None = None,
        clock: VirtualClock | None = None,
        faults: FaultPlan | None = None,
    ) -> None:
        act_as_server()
        self.clock = clock or VirtualClock()
        self._runner = as_runner(client_app)
        self._num_supernodes = num_supernodes
        self._device_of = devices
        self._run_config = run_config or {}
        self._run = Run.create_empty(VIRTUAL_RUN_ID)
        self._nodes: dict[int, tuple[VirtualClient, Device]] = {}
        self._transport = Transport(self._node, self.clock, faults or FaultPlan())
        self._last_number = 0
        self._arrived: list[Delivery] = []
        self._saved: dict[int, bytes] = {}  # digests of client blobs, by partition
        # All of a delivery but its reply, which would live as long as its entry otherwise.
        self._delivered: WeakKeyDictionary[Message, _Place] = WeakKeyDictionary()

    @property
    def faults_seen(self) -> Counter[str]:
        """How often each kind of fault has happened, by the name of its setting.

        What would have struck a message that was lost already, or too late, does not count.
        ``restart`` counts lost states: once however often a client restarted in between.
        """
        self._transport.settle()
        return self._transport.faults_seen

    @property
    def run(self) -> Run:
        """The run that this grid belongs to."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Set the run that this grid belongs to."""
        self._run = run

    def get_node_ids(self) -> list[int]:
        """Ids of all nodes: partition id plus :data:`FIRST_NODE_ID`."""
        return list(range(FIRST_NODE_ID, FIRST_NODE_ID + self._num_supernodes))

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; ``Message(...)`` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages and have their clients begin to work.

        Returns
        -------
        list of str
            An id for each message; None, as Flower has it, for one to an unknown node.
        """
        return [cast(str, self._push(message)) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that have arrived by now, in order of arrival, each once."""
        wanted = message_ids if isinstance(message_ids, AbstractSet) else set(message_ids)
        self._arrived += self._transport.collect()
        found = [delivery for delivery in self._arrived if delivery.message_id in wanted]
        if found:
            self._arrived = [one for one in self._arrived if one.message_id not in wanted]
        for one in found:
            place = (one.arrival, one.node_id, one.number, one.repeat, one.timing)
            self._delivered[one.reply] = place
        return [delivery.reply for delivery in found]

    def put_back(self, replies: Iterable[Message]) -> None:
        """Take replies back that were pulled, so that they are pulled, and saved, once more."""
        self._arrived[:0] = [Delivery(*self._delivered[reply], reply) for reply in replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and wait, in virtual time, for all replies or the timeout."""
        pending = {key for message in messages if (key := self._push(message))}
        deadline = math.inf if timeout is None else self.clock.time() + timeout
        replies: list[Message] = []
        while pending:
            arrived = self.pull_messages(pending)
            replies += arrived
            pending -= {reply.metadata.reply_to_message_id for reply in arrived}
            left = deadline - self.clock.time()
            if not pending or left <= 0.0:
                break
            self.clock.sleep(min(left, _LONG))
        return replies

    def timing_of(self, reply: Message) -> LinkTiming:
        """Return where the time of a reply went; for an expired message, all in waiting.

        Raises
        ------
        KeyError
            If this grid did not deliver the reply.
        """
        return self._delivered[reply][-1]

    def save(self) -> dict[str, bytes | None]:
        """Return the state of the engine, for :meth:`restore`.

        Returns
        -------
        dict of str to bytes or None
            ``grid``, and ``client-<partition>`` for each client that ever got a message; None
            for one whose state is as it was at the last call.
        """
        self._transport.settle()
        clients = [self._nodes[node_id][0] for node_id in sorted(self._nodes)]
        blobs = {client_blob(one.partition_id): self._save_client(one) for one in clients}
        snapshot = GridSnapshot(
            num_supernodes=self._num_supernodes,
            time=self.clock.time(),
            last_number=self._last_number,
            faults_seen=self.faults_seen,
            clients=[
                ClientClock(one.partition_id, one.free_at, one.restarts_until)
                for one in clients
            ],
            held=sorted(self._transport.held),
            travelling=sorted(self._transport.travelling),
            arrived=self._arrived,
        )
        return {GRID_BLOB: snapshot.to_bytes(), **blobs}

    def forget_saved(self) -> None:
        """Give all clients anew at the next :meth:`save`: the last one was not kept."""
        self._saved.clear()
        for client, _ in self._nodes.values():
            client.ran_since_save = True

    def restore(self, blobs: Mapping[str, bytes]) -> None:
        """Go on where another grid was when its state was saved.

        Replies, times and faults are then those that the other grid would have had, given
        the same app, devices, run config and fault plan.

        Parameters
        ----------
        blobs : mapping of str to bytes
            What :meth:`save` returned, each None replaced by the bytes that came before it.
            Blobs of other names are ignored.

        Raises
        ------
        CheckpointError
            If the blobs are wrong or do not fit this grid, or it has been used; it is
            unchanged then.
        """
        if self._last_number or self.clock.time():
            raise CheckpointError("the state of a grid can only be restored into a new one")
        if GRID_BLOB not in blobs:
            raise CheckpointError(f"blob {GRID_BLOB!r} is missing")
        snapshot = GridSnapshot.from_bytes(blobs[GRID_BLOB])
        if snapshot.num_supernodes != self._num_supernodes:
            raise CheckpointError(
                f"saved state of {snapshot.num_supernodes} clients, "
                f"this grid has {self._num_supernodes}"
            )
        states = {}
        for client in snapshot.clients:
            name = client_blob(client.partition_id)
            if name not in blobs:
                raise CheckpointError(f"blob {name!r} is missing")
            states[client.partition_id] = state_from_bytes(client.partition_id, blobs[name])
        self._resume(snapshot, states)

    def _save_client(self, client: VirtualClient) -> bytes | None:
        """Return a client's blob, or None if it is the one that was saved last."""
        partition = client.partition_id
        if not client.ran_since_save:
            return None
        client.ran_since_save = False
        blob = state_to_bytes(partition, client.state)
        digest = hashlib.sha256(blob).digest()
        if self._saved.get(partition) == digest:
            return None
        self._saved[partition] = digest
        return blob

    def _resume(self, snapshot: GridSnapshot, states: Mapping[int, RecordDict]) -> None:
        self.clock.sleep(snapshot.time)  # from 0, so it is exact
        self._last_number = snapshot.last_number
        self.faults_seen.update(snapshot.faults_seen)
        for saved in snapshot.clients:
            client, _ = self._node(FIRST_NODE_ID + saved.partition_id)
            client.free_at = saved.free_at
            client.restarts_until = saved.restarts_until
            client.state = states[saved.partition_id]
        for visit in snapshot.held:
            self._transport.hold(visit)
        for delivery in snapshot.travelling:
            self._transport.deliver(delivery)
        self._arrived = list(snapshot.arrived)

    def _push(self, message: Message) -> str | None:
        node_id = message.metadata.dst_node_id
        if not 0 <= node_id - FIRST_NODE_ID < self._num_supernodes:
            logger.warning("message to node %d, which does not exist, is dropped", node_id)
            return None
        self._last_number += 1
        key = message_id(self._last_number)
        message.metadata.__dict__["_message_id"] = key
        self._transport.send(self._last_number, message)
        return key

    def _node(self, node_id: int) -> tuple[VirtualClient, Device]:
        if node_id not in self._nodes:
            partition_id = node_id - FIRST_NODE_ID
            client = VirtualClient(
                self._runner,
                node_id=node_id,
                partition_id=partition_id,
                num_partitions=self._num_supernodes,
                run_id=self._run.run_id,
                run_config=self._run_config,
            )
            self._nodes[node_id] = client, self._device_of(partition_id)
        return self._nodes[node_id]
