"""Whatever gets lost, doubled, late, damaged or restarted: nothing counts twice or vanishes.

Hypothesis makes up schedules: which message is sent, delivered, dropped or damaged when, who
restarts, when the server steps, gives a round up or is resumed from a checkpoint. After each
step the books are audited, for every client::

    what it computed = what the server applied + what its residual holds
                       + what is under way or will be taken back

A client that has lost its state begins a new book, and has to say so as soon as it can know.
What a resumed server has forgotten, although its client was told that it counts, is booked as
lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from numpy.typing import NDArray

from fl_opt.client.session import train_round
from fl_opt.codecs import decode
from fl_opt.errors import FlOptError
from fl_opt.exchange import records
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.downlink import DownlinkOptions, build_downlink
from fl_opt.exchange.downlink.auto import AutoDownlink
from fl_opt.exchange.downlink.per_client import PerClientDownlink
from fl_opt.exchange.downlink.shared import SharedDownlink
from fl_opt.exchange.feedback import Residual
from fl_opt.exchange.feedback.store import load_state
from fl_opt.exchange.incoming import Answer
from fl_opt.exchange.ledger import Ledger
from fl_opt.exchange.reference import Reference
from fl_opt.exchange.rules import ReplyRules
from fl_opt.params import ParamSpec
from fl_opt.simulation.identity import act_as_server
from strategies.collection import Collection
from strategies.messenger import Messenger

SIZE = 30
NODES = (1001, 1002, 1003)
MODEL = {"weight": np.linspace(-1, 1, SIZE).astype(np.float32)}
SPEC = ParamSpec.of(MODEL)
RULES = ReplyRules("topk(0.1) | ternary", feedback="residual", seed=5)
SCHEDULES = 130  # for each of the four downlinks

Vector = NDArray[np.float64]
CLIENTS = st.sampled_from(NODES)


@dataclass
class Sent:
    """An update that a client has sent.

    ``book`` is that of the client at the time; ``forgotten`` says that it died before it could
    remember the update.
    """

    book: int
    delta: Vector
    decoded: Vector
    forgotten: bool


@dataclass
class Server:
    """What a checkpoint holds."""

    vector: NDArray[np.float32]
    ledger: dict[str, Any]
    downlink: tuple[dict[str, Any], dict[str, NDArray[Any]]]
    applied: set[tuple[int, int]] = field(default_factory=set)


class FaultSchedules(RuleBasedStateMachine):
    """A server, three clients and a network that does its worst."""

    mode: ClassVar[str] = "shared"
    codec: ClassVar[str] = "ecsq(2.0)"

    on_the_way_down = Bundle("on_the_way_down")
    on_the_way_up = Bundle("on_the_way_up")

    @initialize(first_contact=st.sampled_from(["seed", "snapshot"]))
    def begin(self, first_contact: str) -> None:
        act_as_server()
        self.settings = DownlinkOptions(self.mode, self.codec, first_contact)
        self.states = {node_id: RecordDict() for node_id in NODES}
        self.sent: dict[tuple[int, int], Sent] = {}
        self.applied: set[tuple[int, int]] = set()
        self.books = dict.fromkeys(NODES, 0)
        self.lost = {node_id: np.zeros(SIZE) for node_id in NODES}
        self.turns = 0
        self.vector = SPEC.flatten(MODEL)
        self.messenger = self._new_messenger()
        self.messenger.begin(SPEC, self.vector, {})
        self.checkpoint = self._saved()
        self._open_collection()

    @rule(target=on_the_way_down, node_id=CLIENTS)
    def ask(self, node_id: int) -> Message:
        """The server asks a client to train."""
        return self._ask(node_id)

    def _ask(self, node_id: int) -> Message:
        config = ConfigRecord({"server-round": 1})
        account = self.messenger.ledger.of(node_id)
        if account.taken:  # asked again before the round is complete, as asynchronously
            self.relied.add((node_id, account.taken))
        [(message, _)] = self.messenger.open_round(1, [node_id], config, MessageType.TRAIN)
        return message

    @rule(
        target=on_the_way_up,
        message=consumes(on_the_way_down),
        again=st.booleans(),
        fate=st.sampled_from(["fine"] * 5 + ["reply lost", "forgets", "damaged"]),
    )
    def deliver(self, message: Message, again: bool, fate: str) -> Any:
        """A client gets a message, perhaps twice, perhaps long after others."""
        replies = [reply for _ in range(1 + again) if (reply := self._handle(message, fate))]
        return multiple(*([] if fate == "reply lost" else replies))

    @rule(message=consumes(on_the_way_down))
    def drop(self, message: Message) -> None:
        """A message is lost."""

    @rule(
        target=on_the_way_down,
        reply=consumes(on_the_way_up),
        again=st.booleans(),
        damaged=st.sampled_from([False] * 4 + [True]),
    )
    def receive(self, reply: Message, again: bool, damaged: bool) -> Any:
        """The server gets a reply, perhaps twice; it serves a client that needs something."""
        arrived = _damaged(reply) if damaged else reply
        asked = [message for _ in range(1 + again) for message in self._read(reply, arrived)]
        return multiple(*asked)

    @rule(
        node_id=CLIENTS,
        fate=st.sampled_from(["fine", "forgets", "reply lost", "never answered"]),
        steps=st.booleans(),
    )
    def whole_turn(self, node_id: int, fate: str, steps: bool) -> None:
        """All of it at once, so that schedules get far."""
        message: Message | None = self._ask(node_id)
        while message is not None:
            reply = self._handle(message, fate)
            message = None
            if reply is not None and fate in ("fine", "forgets"):
                asked = self._read(reply, reply)
                message = asked[0] if asked else None
        if steps:
            self.step()

    @rule()
    def step(self) -> None:
        """The round is complete: its updates count, the model moves."""
        if not len(self.collection):
            return
        self.collection.commit()
        assert not self.taken & self.applied, "an update was applied twice"
        self.applied |= self.taken
        self.relied.clear()
        delta, _ = self.collection.total.mean()
        self.vector = self.vector + delta
        self.messenger.downlink.advance(self.vector, {})
        self._open_collection()

    @rule(refuse_late=st.booleans())
    def give_up(self, refuse_late: bool) -> None:
        """The round is given up: its updates return to their clients."""
        if self.relied:
            return
        self.collection.release()
        if refuse_late:
            self.messenger.ledger.close_all()
        self._open_collection()

    @rule(node_id=CLIENTS)
    def restart(self, node_id: int) -> None:
        """A client restarts and remembers nothing."""
        self.states[node_id] = RecordDict()
        self._open_book(node_id)

    @rule()
    def save(self) -> None:
        """The server writes a checkpoint at the end of a round."""
        if not len(self.collection):
            self.checkpoint = self._saved()

    @rule()
    def resume(self) -> None:
        """The server dies and a new one goes on from the checkpoint."""
        saved = self.checkpoint
        for node_id, update in (self.applied | self.relied) - saved.applied:
            sent = self.sent[node_id, update]
            client = ClientState.load(self.states[node_id])
            remembered = client.update == update and client.payload
            if sent.book == self.books[node_id] and not (remembered or sent.forgotten):
                self.lost[node_id] += sent.decoded  # its client was told that it counts
        self.applied = set(saved.applied)
        self.vector = saved.vector
        self.messenger = self._new_messenger()
        ledger = Ledger.from_values(saved.ledger)
        self.messenger.resume(SPEC, ledger, *saved.downlink, with_clients=False)
        self.checkpoint = self._saved()
        self._open_collection()

    @invariant()
    def books_balance(self) -> None:
        for node_id in NODES:
            if self._unaware(node_id):
                continue  # it will open a new book as soon as it hears of it
            mine = [
                (key, sent)
                for key, sent in self.sent.items()
                if key[0] == node_id and sent.book == self.books[node_id] and not sent.forgotten
            ]
            computed = sum((sent.delta for _, sent in mine), np.zeros(SIZE))
            applied = sum((s.decoded for key, s in mine if self._counts(key)), np.zeros(SIZE))
            total = applied + self._kept(node_id) + self.lost[node_id]
            np.testing.assert_allclose(total, computed, atol=2e-4)

    def _read(self, reply: Message, arrived: Message) -> list[Message]:
        """Have the server read a reply, and return what it asks in turn."""
        node_id = reply.metadata.src_node_id
        try:
            answer = Answer.of(reply.content)
            self.messenger.note(node_id, answer)
            if answer.need:
                return [self.messenger.repeat(reply, answer)[0]]
            self.collection.take(arrived, answer)
        except FlOptError:
            return []
        update = (node_id, answer.update)
        assert update not in self.taken | self.applied, "an update was taken twice"
        self.taken.add(update)
        return []

    def _handle(self, message: Message, fate: str) -> Message | None:
        node_id = message.metadata.dst_node_id
        state = self.states[node_id]
        if fate == "forgets":
            state = RecordDict(dict(state))
        context = Context(1, node_id, {}, state, {})
        delta = np.zeros(SIZE)

        def train(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            nonlocal delta
            start = arrays["weight"].copy()
            held = self._server_view(node_id, str(meta["reference"]))
            if held is not None:
                np.testing.assert_array_equal(start, held.vector)
            self.turns += 1
            noise = np.random.default_rng(self.turns).standard_normal(SIZE)
            trained = start + (0.1 * noise).astype(np.float32)
            delta = trained.astype(np.float64) - start
            return {"weight": trained}

        payload = records.find_payload(message.content, optional=True)
        meta = records.find_meta(message.content)
        client, accepted = ClientState.load(state), int(str(meta["acknowledged"]))
        unaware = accepted > client.update
        if fate == "damaged":
            payload = _flipped(payload)
        # One client cannot build the first model, another one builds a wrong one.
        built = {NODES[1]: MODEL, NODES[2]: {"weight": MODEL["weight"] + 1}}.get(node_id)
        initial = (lambda: built) if built is not None else None
        try:
            outcome = train_round(payload, meta, context, train, initial=initial)
        except FlOptError:
            return None
        if outcome.done:
            assert outcome.meta["lost"] == unaware
            if unaware and fate != "forgets":
                self._open_book(node_id)
            told = accepted == client.update and not self._counts((node_id, accepted))
            if told and fate != "forgets":  # by a server that is dead
                self.lost[node_id] += self._decoded(client.payload)
            self.sent[node_id, int(outcome.meta["update"])] = Sent(
                self.books[node_id],
                delta,
                self._decoded(outcome.payload),
                forgotten=fate == "forgets",
            )
        content = RecordDict({records.META: records.pack_meta(outcome.meta)})
        content[records.METRICS] = MetricRecord({"num-examples": 3})
        if outcome.payload:
            content[records.ARRAYS] = records.pack_payload(outcome.payload)
        return Message(content, reply_to=message)

    def _counts(self, key: tuple[int, int]) -> bool:
        return key in self.applied or key in self.relied

    def _unaware(self, node_id: int) -> bool:
        """Whether the server relies on an update that the client does not remember."""
        client = ClientState.load(self.states[node_id])
        account = self.messenger.ledger.of(node_id)
        return max(account.accepted, account.taken) > client.update

    def _kept(self, node_id: int) -> Vector:
        """What the client still has to give."""
        client = ClientState.load(self.states[node_id])
        kept = self._residual(self.states[node_id])
        if client.payload and not self._counts((node_id, client.update)):
            kept = kept + self._decoded(client.payload)
        return kept

    def _open_book(self, node_id: int) -> None:
        self.books[node_id] += 1
        self.lost[node_id] = np.zeros(SIZE)

    def _server_view(self, node_id: int, fingerprint: str) -> Reference | None:
        """The reference that the server knows under a fingerprint; it may have moved on."""
        downlink = self.messenger.downlink
        found: Reference | None = None
        if isinstance(downlink, AutoDownlink):
            shared, own = downlink._shared, downlink._per_client
        else:
            shared = downlink if isinstance(downlink, SharedDownlink) else None  # type: ignore[assignment]
            own = downlink if isinstance(downlink, PerClientDownlink) else None  # type: ignore[assignment]
        if own is not None:
            found = own._held.get(node_id, {}).get(fingerprint)
        if found is None and shared is not None:
            found = shared.reference_at(fingerprint)
        return found

    def _residual(self, state: RecordDict) -> Vector:
        kept = load_state(state, Residual(), SPEC).get("residual")
        return np.zeros(SIZE) if kept is None else kept.astype(np.float64)

    def _decoded(self, payload: bytes) -> Vector:
        if not payload:
            return np.zeros(SIZE)
        return decode(payload, size=SIZE).to_dense().astype(np.float64)

    def _new_messenger(self) -> Messenger:
        return Messenger(build_downlink(self.settings, seed=5), RULES)

    def _saved(self) -> Server:
        values, arrays = self.messenger.downlink.state()
        ledger = self.messenger.ledger.to_values()
        copies = {name: array.copy() for name, array in arrays.items()}
        return Server(self.vector.copy(), ledger, (values, copies), set(self.applied))

    def _open_collection(self) -> None:
        self.collection = Collection(SPEC, self.messenger, "num-examples", lambda *_: 1.0)
        self.taken: set[tuple[int, int]] = set()
        self.relied: set[tuple[int, int]] = set()


def _flipped(payload: bytes) -> bytes:
    if not payload:
        return payload
    middle = len(payload) // 2
    return payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]


def _damaged(reply: Message) -> Message:
    content = RecordDict(dict(reply.content))
    payload = _flipped(records.find_payload(content, optional=True))
    if not payload:
        return reply
    content[records.ARRAYS] = records.pack_payload(payload)
    damaged = Message(content, reply_to=reply)
    damaged.metadata.__dict__["_src_node_id"] = reply.metadata.src_node_id
    return damaged


class SharedSchedules(FaultSchedules):
    mode = "shared"


class PerClientSchedules(FaultSchedules):
    mode = "per-client"


class AutoSchedules(FaultSchedules):
    mode = "auto"


class FullSchedules(FaultSchedules):
    mode = "full"
    codec = "fp32"


for machine in (SharedSchedules, PerClientSchedules, AutoSchedules, FullSchedules):
    machine.TestCase.settings = settings(
        max_examples=SCHEDULES,
        stateful_step_count=30,
        deadline=None,
        phases=[phase for phase in Phase if phase not in (Phase.explain, Phase.shrink)],
        suppress_health_check=[HealthCheck.too_slow],
    )

TestShared = SharedSchedules.TestCase
TestPerClient = PerClientSchedules.TestCase
TestAuto = AutoSchedules.TestCase
TestFull = FullSchedules.TestCase
