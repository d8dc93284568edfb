"""A Flower Grid in one process, whose network and devices are simulated.

Clients really train and messages really carry their payloads; only time is made up. A
message to a client and its reply take::

    latency + bytes down / downlink  +  samples / speed  +  latency + bytes up / uplink

on the grid's clock, with the sizes of the real messages and the number of samples that the
client says it processed. A device does one thing after the other: a message to a busy one
waits.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import cast
from weakref import WeakKeyDictionary

from flwr.app import Error, Message, RecordDict
from flwr.app.user_config import UserConfigValue
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fl_opt.exchange.traffic import message_bytes
from fl_opt.simulation.client import CallableClientApp, VirtualClient
from fl_opt.simulation.clock import VirtualClock
from fl_opt.simulation.devices import Device, DeviceModel
from fl_opt.simulation.identity import VIRTUAL_RUN_ID, act_as_server

logger = logging.getLogger(__name__)

FIRST_NODE_ID = 1000
"""Node id of partition 0; far from 1, which is the SuperLink's."""

EVALUATION_COST = 1.0 / 3.0
"""Work of evaluating a sample in units of training on it: a backward pass costs about twice
as much as a forward pass (Kaplan et al. 2020, section 2.1: 4N against 2N operations)."""

_LONG = 1e9  # seconds; ends at the next event


@dataclass(frozen=True)
class LinkTiming:
    """Where the time of one message and its reply went, in virtual seconds.

    ``download`` and ``upload`` include latency; ``queued`` is the time that the message
    waited for its device to finish earlier ones.
    """

    download: float
    compute: float
    upload: float
    queued: float = 0.0

    @property
    def total(self) -> float:
        """From pushing the message to the arrival of its reply."""
        return self.queued + self.download + self.compute + self.upload


@dataclass(order=True)
class _Delivery:
    """A reply on its way; ordered by arrival, then node."""

    arrival: float
    node_id: int
    sequence: int
    message_id: str
    reply: Message


class VirtualGrid(Grid):
    """Runs a ClientApp for every node in this process, on a virtual clock.

    Clients run when messages are pushed to them; their replies can be pulled once the clock
    has reached their arrival. A message without a reply within its time to live is answered
    by an error then, as by a SuperLink. Same inputs give the same replies in the same order
    at the same times.

    Parameters
    ----------
    client_app : ClientApp
    num_supernodes : int
        Number of clients. They cost next to nothing until they get a message.
    devices : DeviceModel
        The device of each client, by partition id.
    run_config : mapping, optional
        Handed to clients as ``context.run_config``.
    clock : VirtualClock, optional
        A new one by default.
    """

    def __init__(
        self,
        client_app: CallableClientApp,
        num_supernodes: int,
        devices: DeviceModel,
        *,
        run_config: Mapping[str, UserConfigValue] | None = None,
        clock: VirtualClock | None = None,
    ) -> None:
        act_as_server()
        self.clock = clock or VirtualClock()
        self._client_app = client_app
        self._num_supernodes = num_supernodes
        self._device_of = devices
        self._run_config = run_config or {}
        self._run = Run.create_empty(VIRTUAL_RUN_ID)
        self._nodes: dict[int, tuple[VirtualClient, Device]] = {}
        self._numbers = itertools.count(1)
        self._travelling: list[_Delivery] = []
        self._arrived: dict[str, _Delivery] = {}
        self._timings: WeakKeyDictionary[Message, LinkTiming] = WeakKeyDictionary()

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
        """Send messages: run the clients and schedule the arrival of their replies.

        Returns
        -------
        list of str
            An id for each message; None, as Flower has it, for one to an unknown node.
        """
        return [cast(str, self._push(message)) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that have arrived by now, in order of arrival, each once."""
        wanted = message_ids if isinstance(message_ids, AbstractSet) else set(message_ids)
        now = self.clock.time()
        while self._travelling and self._travelling[0].arrival <= now:
            delivery = heapq.heappop(self._travelling)
            self._arrived[delivery.message_id] = delivery
        found = [key for key in self._arrived if key in wanted]
        return [self._arrived.pop(key).reply for key in found]

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
        return self._timings[reply]

    def _push(self, message: Message) -> str | None:
        node_id = message.metadata.dst_node_id
        if not 0 <= node_id - FIRST_NODE_ID < self._num_supernodes:
            logger.warning("message to node %d, which does not exist, is dropped", node_id)
            return None
        number = next(self._numbers)
        message_id = f"{number:064x}"  # as long as Flower's, which are hashes
        message.metadata.__dict__["_message_id"] = message_id
        reply, timing = self._exchange(message)
        reply.metadata.__dict__["_message_id"] = f"{number | 1 << 255:064x}"
        self._timings[reply] = timing
        arrival = self.clock.time() + timing.total
        heapq.heappush(self._travelling, _Delivery(arrival, node_id, number, message_id, reply))
        self.clock.schedule(arrival)
        return message_id

    def _exchange(self, message: Message) -> tuple[Message, LinkTiming]:
        """Run a client on a message and say how long that takes from now on."""
        client, device = self._node(message.metadata.dst_node_id)
        now = self.clock.time()
        expiry = now + message.metadata.ttl
        queued = max(client.free_at - now, 0.0)
        download = device.download_seconds(message_bytes(message), now + queued)
        received = now + queued + download
        if received > expiry:
            return _expired(message)
        reply = client.handle(message)
        work = _work(reply)
        compute = device.compute_seconds(work, received) if work else 0.0
        upload = device.upload_seconds(message_bytes(reply), received + compute)
        client.free_at = min(received + compute + upload, expiry)
        if received + compute + upload > expiry:
            return _expired(message)
        return reply, LinkTiming(download, compute, upload, queued)

    def _node(self, node_id: int) -> tuple[VirtualClient, Device]:
        if node_id not in self._nodes:
            partition_id = node_id - FIRST_NODE_ID
            client = VirtualClient(
                self._client_app,
                node_id=node_id,
                partition_id=partition_id,
                num_partitions=self._num_supernodes,
                run_id=self._run.run_id,
                run_config=self._run_config,
            )
            self._nodes[node_id] = client, self._device_of(partition_id)
        return self._nodes[node_id]


def _expired(message: Message) -> tuple[Message, LinkTiming]:
    ttl = message.metadata.ttl
    reason = f"no reply within the message's time to live of {ttl:g} s"
    error = Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason=reason)
    return Message(error, reply_to=message), LinkTiming(0.0, 0.0, 0.0, queued=ttl)


def _work(reply: Message) -> float:
    """Return the work behind a reply, in samples trained on.

    ``num-samples`` counts a sample as often as it was used; without it ``num-examples``
    stands in. An error, or a reply that says neither, is taken to have cost nothing.
    """
    if not reply.has_content():
        return 0.0
    cost = 1.0 if reply.metadata.message_type.startswith("train") else EVALUATION_COST
    for key in ("num-samples", "num-examples"):
        for metrics in reply.content.metric_records.values():
            value = metrics.get(key)
            if isinstance(value, int | float) and 0.0 <= value < math.inf:
                return cost * value
    return 0.0
