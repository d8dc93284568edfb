"""The way of messages to clients and of replies back, with all that can happen on it.

A message that nothing delays is handed to its client when it is sent. One that a fault delays
is held until its time has come, and the client gets it then, after messages that were sent
later and overtook it.

How long a client works is known from its reply alone. It is waited for no sooner than the
clock is about to pass the moment at which the client had the message, so that clients that
were asked by then work at the same time where there are processes for it; or before the same
client gets its next message.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fl_opt.exchange.traffic import message_bytes
from fl_opt.simulation.client import VirtualClient
from fl_opt.simulation.clock import VirtualClock
from fl_opt.simulation.devices import Device
from fl_opt.simulation.faults import DOWN, UP, Fault, FaultPlan
from fl_opt.simulation.isolation import isolated_message, with_own_metadata
from fl_opt.simulation.transit import Delivery, Job, LinkTiming, Visit, reply_id

NodeOf: TypeAlias = Callable[[int], tuple[VirtualClient, Device]]
"""Gives the client and the device of a node id; the same ones every time."""

EVALUATION_COST: Final = 1.0 / 3.0
"""Work of evaluating a sample in units of training on it: a backward pass costs about twice
as much as a forward pass (Kaplan et al. 2020, section 2.1: 4N against 2N operations)."""


class Transport:
    """Carries messages, runs clients on them and carries their replies.

    Parameters
    ----------
    node_of : callable
        A :data:`NodeOf`.
    clock : VirtualClock
        Told of everything that will happen.
    faults : FaultPlan
        What goes wrong.

    Attributes
    ----------
    faults_seen : Counter of str
        How often each kind of fault has happened, as far as clients have answered.
    at_work : dict of int to Job
        Clients whose answers are not known yet, by node id, in the order of their beginning.
    held : list of Visit
        A heap of the messages that are delayed on their way to clients.
    travelling : list of Delivery
        A heap of the replies under way.
    """

    def __init__(self, node_of: NodeOf, clock: VirtualClock, faults: FaultPlan) -> None:
        self._node_of = node_of
        self._clock = clock
        self._faults = faults
        self.faults_seen: Counter[str] = Counter()
        self.at_work: dict[int, Job] = {}
        self.held: list[Visit] = []
        self.travelling: list[Delivery] = []
        clock.before_moving(self.settle)

    def send(self, number: int, message: Message) -> None:
        """Send a message; ``number`` is one that no other message has."""
        self._visit_due()
        now = self._clock.time()
        place = (message.metadata.dst_node_id, number)
        if self._strikes("lose-down", *place):
            self._expire(Visit(now, number, 0, now, True, message))
            return
        twice = self._faults.happens("duplicate-down", *place)
        answering = self._faults.answering_copy(*place) if twice else 0
        for repeat in range(1 + twice):
            delay = self._delay(*place, repeat, DOWN)
            visit = Visit(now + delay, number, repeat, now, repeat == answering, message)
            if delay == 0.0:
                self._visit(visit)
            elif visit.start > visit.expiry:
                self._expire(visit)
            else:
                self.hold(replace(visit, message=isolated_message(message)))

    def collect(self) -> list[Delivery]:
        """Take the replies that have arrived by now, in order of arrival."""
        now = self._clock.time()
        self._visit_due()
        self.settle(now)
        arrived = []
        while self.travelling and self.travelling[0].arrival <= now:
            arrived.append(heapq.heappop(self.travelling))
        return arrived

    def settle(self, moment: float = math.inf) -> None:
        """Wait for all clients whose answers might arrive by a moment; by default for all."""
        due = [node for node, job in self.at_work.items() if job.received <= moment]
        for node_id in due:
            self._finish(self.at_work.pop(node_id))

    def hold(self, visit: Visit) -> None:
        """Keep a message until its time has come."""
        heapq.heappush(self.held, visit)
        self._clock.schedule(visit.start)

    def deliver(self, delivery: Delivery) -> None:
        """Let a reply arrive when its time has come."""
        heapq.heappush(self.travelling, delivery)
        self._clock.schedule(delivery.arrival)

    def _visit_due(self) -> None:
        while self.held and self.held[0].start <= self._clock.time():
            self._visit(heapq.heappop(self.held))

    def _visit(self, visit: Visit) -> None:
        """Hand a message to its client, who begins to work on it."""
        node_id = visit.message.metadata.dst_node_id
        if node_id in self.at_work:
            self._finish(self.at_work.pop(node_id))
        client, device = self._node_of(node_id)
        queued = max(client.free_at - visit.start, 0.0)
        transfer = device.download_seconds(message_bytes(visit.message), visit.start + queued)
        received = visit.start + queued + transfer
        if received > visit.expiry:
            self._expire(visit)
            return
        message, forget = self._befall(client, visit)
        pending = client.begin(message)
        kept = replace(visit, message=with_own_metadata(visit.message))
        self.at_work[node_id] = Job(kept, queued, transfer, received, forget, pending)

    def _befall(self, client: VirtualClient, visit: Visit) -> tuple[Message, bool]:
        """Let happen to a client what happens by the time it has a message.

        Returns
        -------
        message : Message
            As the client gets it.
        forget : bool
            Whether it dies before it has saved its next state.
        """
        if visit.repeat:
            self.faults_seen["duplicate-down"] += 1
        server_round = _round_of(visit.message)
        if client.state and self._faults.restarts(
            client.node_id, after=client.restarts_until, until=server_round
        ):
            self.faults_seen["restart"] += 1
            client.state = RecordDict()
        client.restarts_until = max(client.restarts_until, server_round)
        place = (client.node_id, visit.number, visit.repeat)
        message = self._corrupted("corrupt-down", visit.message, *place)
        return message, self._faults.happens("forget", *place)

    def _finish(self, job: Job) -> None:
        """Wait for a client's reply, and send it."""
        visit = job.visit
        client, device = self._node_of(visit.message.metadata.dst_node_id)
        reply = client.finish(job.pending(), forget=job.forget)
        if job.forget and reply.has_content():
            self.faults_seen["forget"] += 1
        work = _work(reply)
        compute = device.compute_seconds(work, job.received) if work else 0.0
        if compute and self._strikes("slow", client.node_id, visit.number):
            compute *= self._faults.slow_factor
        sent = job.received + compute
        upload = device.upload_seconds(message_bytes(reply), sent)
        client.free_at = min(sent + upload, visit.expiry)
        if visit.answers:
            download = visit.start - visit.pushed + job.transfer
            timing = LinkTiming(download, compute, upload, job.queued)
            self._answer(visit, reply, timing, arrival=sent + upload)

    def _answer(self, visit: Visit, reply: Message, timing: LinkTiming, arrival: float) -> None:
        """Send a reply, or two copies of it; ``arrival`` is that of an undelayed one."""
        place = (visit.message.metadata.dst_node_id, visit.number)
        if arrival > visit.expiry or self._strikes("lose-up", *place):
            self._expire(visit)
            return
        copies = 1 + self._faults.happens("duplicate-up", *place)
        delays = [self._delay(*place, repeat, UP) for repeat in range(copies)]
        on_time = [delay for delay in delays if arrival + delay <= visit.expiry]
        for repeat, delay in enumerate(on_time):
            own = reply if repeat == 0 else isolated_message(reply)
            own = self._corrupted("corrupt-up", own, *place, repeat)
            self._return(visit, own, replace(timing, upload=timing.upload + delay), repeat)
        if len(on_time) == 2:
            self.faults_seen["duplicate-up"] += 1
        if not on_time:
            self._expire(visit)

    def _expire(self, visit: Visit) -> None:
        """Answer with an error once the message's time to live is over, as a SuperLink does."""
        if not visit.answers:
            return
        ttl = visit.message.metadata.ttl
        reason = f"no reply within the message's time to live of {ttl:g} s"
        error = Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason=reason)
        timing = LinkTiming(0.0, 0.0, 0.0, queued=ttl)
        self._return(visit, Message(error, reply_to=visit.message), timing)

    def _return(
        self, visit: Visit, reply: Message, timing: LinkTiming, repeat: int = 0
    ) -> None:
        reply.metadata.__dict__["_message_id"] = reply_id(visit.number)
        arrival = visit.pushed + timing.total
        node_id = visit.message.metadata.dst_node_id
        self.deliver(Delivery(arrival, node_id, visit.number, repeat, timing, reply))

    def _strikes(self, fault: Fault, *place: int) -> bool:
        """Say whether a fault happens, and count it."""
        happens = self._faults.happens(fault, *place)
        if happens:
            self.faults_seen[fault] += 1
        return happens

    def _delay(self, *place: int) -> float:
        seconds = self._faults.extra_seconds(*place)
        if seconds:
            self.faults_seen["delay"] += 1
        return seconds

    def _corrupted(self, fault: Fault, message: Message, *place: int) -> Message:
        result = self._faults.corrupted(fault, message, *place)
        if result is not message:
            self.faults_seen[fault] += 1
        return result


def _round_of(message: Message) -> int:
    """Return the round that a message belongs to, as Flower's strategies write it; else 0."""
    group = message.metadata.group_id
    return int(group) if group.isdecimal() and len(group) < 10 else 0


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
