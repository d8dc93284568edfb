"""CompressedNumPyClient and compression_mod: plain arrays inside, coded messages outside."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from fl_opt.client import CompressedNumPyClient, compression_mod, numpy_client_app
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.downlink.base import Kind
from fl_opt.exchange.downlink.per_client import PerClientDownlink
from fl_opt.exchange.incoming import Answer, decode_update
from fl_opt.exchange.rules import ReplyRules
from fl_opt.params import NamedArrays, ParamSpec
from fl_opt.simulation.identity import act_as_server
from tests.exchange.ends import as_content, meta_of, whole_model
from tests.toy import (
    PullClient,
    evaluate_message,
    initial_arrays,
    message_app,
    pull_client_fn,
    target,
)

NAMED = {name: array.numpy() for name, array in initial_arrays().items()}
SPEC = ParamSpec.of(NAMED)


def make_context(partition_id: int = 2) -> Context:
    node_config: dict[str, Any] = {"partition-id": partition_id, "num-partitions": 4}
    return Context(1, 99, node_config, RecordDict(), {})


def make_message(message_type: str = "train", codec: str = "none", **others: Any) -> Message:
    act_as_server()
    rules = ReplyRules(codec, feedback="residual", seed=0)
    content = as_content(*whole_model(NAMED, rules, version=0, **others))
    content["config"] = ConfigRecord({"server-round": 1, "lr": 0.5})
    return Message(content, 99, message_type)


def decode_message(reply: Message) -> dict[str, np.ndarray]:
    received = decode_update(reply.content, Answer.of(reply.content), SPEC, version=0)
    vector = SPEC.flatten(NAMED)
    received.update.add_to(vector)
    return SPEC.unflatten(vector, received.exact)


APPS = {
    "numpy client": lambda: numpy_client_app(pull_client_fn),
    "wrapped numpy client": lambda: numpy_client_app(lambda c: pull_client_fn(c).to_client()),
    "message app with mod": lambda: message_app([compression_mod(evaluate=evaluate_message)]),
}


@pytest.mark.parametrize("app", APPS)
def test_training_reply_is_the_coded_update(app: str) -> None:
    reply = APPS[app]()(make_message(), make_context())
    after = decode_message(reply)
    np.testing.assert_allclose(after["weight"].reshape(-1), target(2) / 2, atol=1e-6)
    assert int(after["steps"]) == 1
    metrics = reply.content.metric_records["metrics"]
    assert metrics["num-examples"] == 3
    assert metrics["train-loss"] == pytest.approx(float(np.square(target(2)).mean()))
    assert list(reply.content.array_records) == ["arrays"]
    meta = cast("dict[str, float]", reply.content.config_records["fl-opt"])
    assert meta["train-seconds"] >= 0
    assert meta["peak-memory-bytes"] > 1e6


@pytest.mark.parametrize("app", APPS)
def test_evaluation_sees_the_plain_model(app: str) -> None:
    reply = APPS[app]()(make_message("evaluate"), make_context())
    metrics = reply.content.metric_records["metrics"]
    assert metrics["loss"] == pytest.approx(float(np.square(target(2)).mean()))
    assert metrics["num-examples"] == 3


@pytest.mark.parametrize("app", APPS)
def test_residual_is_kept_in_the_context(app: str) -> None:
    context = make_context()
    reply = APPS[app]()(make_message(codec="topk(0.1) | ternary"), context)
    sent = decode_message(reply)["weight"].reshape(-1)
    residual = np.frombuffer(
        context.state.array_records["fl-opt.feedback"]["residual"].data, np.float32
    )
    np.testing.assert_allclose(sent + residual, target(2) / 2, atol=1e-6)
    assert np.count_nonzero(sent) == 4


class Server:
    """A server that keeps a reference of each client, without a strategy around it."""

    def __init__(self, *, from_seed: bool, named: NamedArrays = NAMED) -> None:
        act_as_server()
        self.spec = ParamSpec.of(named)
        self.vector, self.exact = self.spec.flatten(named), self.spec.exact_part(named)
        self.downlink = PerClientDownlink(
            "int8", seed=0, from_seed=from_seed, memory_limit=10**6
        )
        self.downlink.begin(self.spec, self.vector, self.exact)
        self.update = 0
        self.accepted = 0

    def message(
        self,
        held: str = "",
        *,
        seed: bool = False,
        kind: str = "train",
        evaluate: bool = False,
        **others: Any,
    ) -> tuple[Message, Kind]:
        """A message to the client, which accepts all that it has sent."""
        delivery = self.downlink.serve(99, held, seed=seed)
        self.accepted = self.update
        self.update += kind == "train"
        meta = meta_of(
            self.spec,
            delivery,
            version=self.downlink.version,
            step=self.downlink.step,
            rules=ReplyRules("none", "residual", seed=0, evaluate=evaluate),
        )
        meta |= {"update": self.update * (kind == "train"), "acknowledged": self.accepted}
        content = as_content(delivery.payload, {**meta, **others})
        return Message(content, 99, kind), delivery.kind

    def move(self) -> None:
        self.vector = self.vector + np.float32(1.0)
        self.downlink.advance(self.vector, self.exact)


def build_first(context: Context) -> ArrayRecord:
    return initial_arrays()


SEEDED_APPS = {
    "numpy client": lambda: numpy_client_app(pull_client_fn, lambda _: list(NAMED.values())),
    "message app with mod": lambda: message_app([compression_mod(build_first)]),
}


@pytest.mark.parametrize("app", SEEDED_APPS)
class TestReferences:
    def test_the_first_message_carries_no_model(self, app: str) -> None:
        server, context = Server(from_seed=True), make_context()
        message, kind = server.message(seed=True)
        assert kind is Kind.FROM_SEED
        assert not message.content.array_records
        reply = SEEDED_APPS[app]()(message, context)
        after = decode_message(reply)
        np.testing.assert_allclose(after["weight"].reshape(-1), target(2) / 2, atol=1e-6)
        held = Answer.of(reply.content).held
        assert ClientState.load(context.state).reference.fingerprint == held  # type: ignore[union-attr]

    def test_later_messages_carry_the_difference_to_what_is_held(self, app: str) -> None:
        server, context, client = Server(from_seed=True), make_context(), SEEDED_APPS[app]()
        held = Answer.of(client(server.message(seed=True)[0], context).content).held
        server.move()
        message, kind = server.message(held)
        assert kind is Kind.DIFFERENCE
        answer = Answer.of(client(message, context).content)
        assert answer.version == 1
        assert answer.held != held
        message, kind = server.message(answer.held)
        assert kind is Kind.CURRENT
        assert Answer.of(client(message, context).content).held == answer.held

    def test_an_evaluation_of_what_is_held_carries_nothing(self, app: str) -> None:
        server, context, client = Server(from_seed=True), make_context(), SEEDED_APPS[app]()
        held = Answer.of(client(server.message(seed=True)[0], context).content).held
        before = ClientState.load(context.state)
        message, kind = server.message(held, kind="evaluate")
        assert kind is Kind.CURRENT
        assert not message.content.array_records
        reply = client(message, context)
        expected = float(np.square(target(2)).mean())
        assert reply.content.metric_records["metrics"]["loss"] == pytest.approx(expected)
        after = ClientState.load(context.state)
        assert (after.update, after.payload) == (before.update, before.payload)

    def test_an_evaluation_may_move_what_is_held(self, app: str) -> None:
        server, context, client = Server(from_seed=True), make_context(), SEEDED_APPS[app]()
        held = Answer.of(client(server.message(seed=True)[0], context).content).held
        pending = ClientState.load(context.state).payload
        server.move()
        reply = client(server.message(held, kind="evaluate")[0], context)
        expected = float(np.square(1.0 - target(2)).mean())
        assert reply.content.metric_records["metrics"]["loss"] == pytest.approx(expected)
        answer = Answer.of(reply.content)
        assert server.downlink.serve(99, answer.held, seed=False).kind is Kind.CURRENT
        assert ClientState.load(context.state).payload == pending  # not settled yet

    def test_a_client_that_has_lost_its_state_says_what_it_needs(self, app: str) -> None:
        server, client = Server(from_seed=True), SEEDED_APPS[app]()
        held = Answer.of(client(server.message(seed=True)[0], make_context()).content).held
        for kind in ("train", "evaluate"):
            server.move()
            context = make_context()
            reply = client(server.message(held, kind=kind)[0], context)
            answer = Answer.of(reply.content)
            assert "this client holds nothing" in answer.need
            assert (answer.held, answer.seed) == ("", True)
            assert not reply.content.array_records
            assert not context.state
            message, delivered = server.message(answer.held, seed=answer.seed, kind=kind)
            assert delivered is Kind.FROM_SEED
            answer = Answer.of(client(message, context).content)
            assert not answer.need
            held = answer.held

    def test_a_client_that_builds_another_first_model_says_so(self, app: str) -> None:
        named = {"weight": np.ones((4, 10), np.float32), "steps": np.array(0)}
        server, context = Server(from_seed=True, named=named), make_context()
        answer = Answer.of(SEEDED_APPS[app]()(server.message(seed=True)[0], context).content)
        assert "has fingerprint" in answer.need
        assert answer.seed is False
        message, kind = server.message(answer.held, seed=answer.seed)
        assert kind is Kind.SNAPSHOT
        assert not Answer.of(SEEDED_APPS[app]()(message, context).content).need

    def test_a_damaged_payload_is_asked_for_again(self, app: str) -> None:
        server, context, client = Server(from_seed=True), make_context(), SEEDED_APPS[app]()
        held = Answer.of(client(server.message(seed=True)[0], context).content).held
        before = dict(context.state)
        server.move()
        message, _ = server.message(held)
        payload = bytearray(records.find_payload(message.content))
        payload[20] ^= 1
        message.content[records.ARRAYS] = records.pack_payload(bytes(payload))
        answer = Answer.of(client(message, context).content)
        assert "checksum" in answer.need
        assert answer.held == held
        assert dict(context.state) == before


@pytest.mark.parametrize("app", APPS)
def test_without_the_first_model_a_client_asks_for_a_snapshot(app: str) -> None:
    server, context = Server(from_seed=True), make_context()
    answer = Answer.of(APPS[app]()(server.message(seed=True)[0], context).content)
    assert "cannot build the first model" in answer.need
    assert answer.seed is False
    message, kind = server.message(answer.held, seed=answer.seed)
    assert kind is Kind.SNAPSHOT
    assert not Answer.of(APPS[app]()(message, context).content).need


@pytest.mark.parametrize("app", APPS)
class TestPiggybackEvaluation:
    def test_the_model_received_is_evaluated_before_it_is_trained(self, app: str) -> None:
        message, _ = Server(from_seed=False).message(evaluate=True)
        reply = APPS[app]()(message, make_context())
        found = reply.content.metric_records[records.EVALUATION]
        loss = float(np.square(target(2)).mean())
        assert found["loss"] == pytest.approx(loss)
        assert found["accuracy"] == pytest.approx(1 / (1 + loss))
        assert found["num-examples"] == 3
        assert set(reply.content.metric_records) == {"metrics", records.EVALUATION}
        after = decode_message(reply)
        np.testing.assert_allclose(after["weight"].reshape(-1), target(2) / 2, atol=1e-6)
        assert "num-samples" not in found

    def test_nothing_is_evaluated_unasked(self, app: str) -> None:
        reply = APPS[app]()(Server(from_seed=False).message()[0], make_context())
        assert set(reply.content.metric_records) == {"metrics"}

    def test_an_update_that_is_asked_for_again_is_repeated_without_training(
        self, app: str
    ) -> None:
        context = make_context()
        message, _ = Server(from_seed=False).message(evaluate=True)
        first = APPS[app]()(message, context)
        state = dict(context.state)
        message, _ = Server(from_seed=False).message(evaluate=True)  # the same once more
        again = APPS[app]()(message, context)
        assert records.find_payload(again.content) == records.find_payload(first.content)
        assert records.EVALUATION not in again.content.metric_records
        assert dict(context.state) == state


@pytest.mark.parametrize("app", APPS)
def test_a_message_older_than_one_that_was_answered_is_refused(app: str) -> None:
    server, context = Server(from_seed=False), make_context()
    old, _ = server.message()
    new, _ = server.message()
    APPS[app]()(new, context)
    state = dict(context.state)
    with pytest.raises(ExchangeError, match="asks for update 1, but 2 was sent already"):
        APPS[app]()(old, context)
    assert dict(context.state) == state


def test_a_mod_that_does_not_know_how_to_evaluate_does_not() -> None:
    message, _ = Server(from_seed=False).message(evaluate=True)
    reply = message_app([compression_mod()])(message, make_context())
    assert set(reply.content.metric_records) == {"metrics"}
    assert not reply.has_error()


def test_an_error_in_the_evaluation_before_training_is_passed_on() -> None:
    def evaluate(message: Message, context: Context) -> Message:
        return Message(Error(8, "disk full"), reply_to=message)

    app = ClientApp(mods=[compression_mod(evaluate=evaluate)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise AssertionError("trained though evaluation failed")

    context = make_context()
    reply = app(Server(from_seed=False).message(evaluate=True)[0], context)
    assert reply.error.reason == "disk full"
    assert not context.state


def test_the_wrapped_client_sees_its_own_configuration_only() -> None:
    inner = PullClient(0)
    numpy_client_app(lambda _: inner)(make_message(), make_context())
    assert inner.configs == [{"server-round": 1, "lr": 0.5}]


def test_fit_takes_and_returns_one_array_of_bytes() -> None:
    message = make_message()
    client = CompressedNumPyClient(PullClient(1), make_context())
    payload = np.frombuffer(records.find_payload(message.content), np.uint8)
    found = cast("dict[str, int | str | bytes]", records.find_meta(message.content))
    meta: dict[str, Any] = {f"fl-opt.{k}": v for k, v in found.items()}
    parameters, num_examples, metrics = client.fit([payload], meta)
    assert [p.dtype for p in parameters] == [np.uint8]
    assert num_examples == 2
    assert metrics["fl-opt.version"] == 0
    assert metrics["done"] is True


def test_metrics_that_are_no_numbers_are_named_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Talkative(PullClient):
        def fit(self, parameters: Any, config: Any) -> Any:
            arrays, count, metrics = super().fit(parameters, config)
            return arrays, count, {**metrics, "note": "fine", "score": np.float32(0.5)}

    reply = numpy_client_app(lambda _: Talkative(0))(make_message(), make_context())
    metrics = reply.content.metric_records["metrics"]
    assert "note" not in metrics
    assert metrics["score"] == 0.5
    assert metrics["done"] == 1
    assert "metric 'note' is not a number" in caplog.text


def test_a_client_that_returns_too_few_arrays_is_an_error() -> None:
    class Forgetful(PullClient):
        def fit(self, parameters: Any, config: Any) -> Any:
            return parameters[:1], 1, {}

    with pytest.raises(ExchangeError, match="returned 1 arrays, the model has 2"):
        numpy_client_app(lambda _: Forgetful(0))(make_message(), make_context())


def test_plain_parameters_are_refused_with_a_hint() -> None:
    client = CompressedNumPyClient(PullClient(0), make_context())
    with pytest.raises(ExchangeError, match="use a strategy such as CompressedFedAvg"):
        client.fit([np.zeros(3, np.float32)], {})


def test_only_numpy_clients_can_be_wrapped() -> None:
    with pytest.raises(TypeError, match=r"str is not a flwr\.client\.NumPyClient"):
        CompressedNumPyClient("client", make_context())  # type: ignore[arg-type]


def test_properties_and_parameters_are_the_wrapped_clients() -> None:
    class Described(NumPyClient):
        def get_properties(self, config: Any) -> Any:
            return {"speed": config["unit"]}

        def get_parameters(self, config: Any) -> Any:
            return [np.ones(2)]

    client = CompressedNumPyClient(Described(), make_context())
    assert client.get_properties({"unit": 7}) == {"speed": 7}
    assert client.get_parameters({})[0].tolist() == [1.0, 1.0]


def test_mod_passes_on_an_error_of_the_app() -> None:
    app = ClientApp(mods=[compression_mod()])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(Error(7, "battery empty"), reply_to=message)

    reply = app(make_message(), make_context())
    assert reply.error.reason == "battery empty"


def test_mod_leaves_queries_alone() -> None:
    app = ClientApp(mods=[compression_mod()])

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    message = make_message("query")
    assert app(message, make_context()).content == message.content


def test_mod_under_a_plain_strategy_says_what_is_wrong() -> None:
    message = make_message()
    message.content = RecordDict({"arrays": initial_arrays()})
    with pytest.raises(ExchangeError, match="no coded payload"):
        message_app([compression_mod()])(message, make_context())
