"""CompressedNumPyClient and compression_mod: plain arrays inside, coded messages outside."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from fl_opt.client import CompressedNumPyClient, compression_mod, numpy_client_app
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.downlink import ReplyRules, build_downlink_codec, pack_broadcast
from fl_opt.exchange.uplink import decode_reply
from fl_opt.params import ParamSpec
from fl_opt.simulation.identity import act_as_server
from tests.toy import PullClient, initial_arrays, message_app, pull_client_fn, target

NAMED = {name: array.numpy() for name, array in initial_arrays().items()}
SPEC = ParamSpec.of(NAMED)


def make_context(partition_id: int = 2) -> Context:
    node_config: dict[str, Any] = {"partition-id": partition_id, "num-partitions": 4}
    return Context(1, 99, node_config, RecordDict(), {})


def make_message(message_type: str = "train", codec: str = "none") -> Message:
    act_as_server()
    content = pack_broadcast(
        SPEC,
        build_downlink_codec("fp32"),
        SPEC.flatten(NAMED),
        SPEC.exact_part(NAMED),
        version=0,
        rules=ReplyRules(codec, feedback="residual", seed=0),
    )
    content["config"] = ConfigRecord({"server-round": 1, "lr": 0.5})
    return Message(content, 99, message_type)


def decode_message(reply: Message) -> dict[str, np.ndarray]:
    received = decode_reply(reply.content, SPEC, version=0)
    vector = SPEC.flatten(NAMED)
    received.update.add_to(vector)
    return SPEC.unflatten(vector, received.exact)


APPS = {
    "numpy client": lambda: numpy_client_app(pull_client_fn),
    "wrapped numpy client": lambda: numpy_client_app(lambda c: pull_client_fn(c).to_client()),
    "message app with mod": lambda: message_app([compression_mod()]),
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
