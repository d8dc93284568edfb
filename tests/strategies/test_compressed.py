"""The compressed strategy on the virtual engine: means, refusals, records."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fl_opt.client import numpy_client_app
from fl_opt.errors import ConfigError, ModelError
from fl_opt.exchange import records
from fl_opt.exchange.downlink import DownlinkOptions
from fl_opt.exchange.traffic import payload_bytes
from strategies import CompressedFedAvg
from tests.strategies.federation import Recorder, expected_mean, run, weights
from tests.toy import initial_arrays, message_app, pull_client_fn, target, toy_grid


def test_one_round_is_the_mean_weighted_by_examples() -> None:
    result, _ = run()
    np.testing.assert_allclose(weights(result.arrays), expected_mean(0, 1, 2, 3), atol=1e-6)
    assert int(result.arrays["steps"].numpy()) == 1


def test_uncoded_rounds_equal_flowers_fedavg() -> None:
    ours, _ = run(num_rounds=4, feedback="none")
    plain = FedAvg(min_train_nodes=4, min_evaluate_nodes=4)
    theirs = plain.start(toy_grid(message_app([])), initial_arrays(), 4)
    np.testing.assert_allclose(weights(ours.arrays), weights(theirs.arrays), atol=1e-6)
    ours_loss = ours.evaluate_metrics_clientapp[4]["loss"]
    assert ours_loss == pytest.approx(theirs.evaluate_metrics_clientapp[4]["loss"], rel=1e-5)


def test_error_feedback_makes_a_biased_codec_right_on_average() -> None:
    goal = expected_mean(0, 1, 2, 3) * 2
    errors = []
    for feedback in ("residual", "none"):
        path: list[NDArray[np.float32]] = []
        run(
            codec="topk(0.3)",
            num_rounds=120,
            feedback=feedback,
            evaluate_every=0,
            evaluate_fn=lambda _, arrays, path=path: path.append(weights(arrays)),
        )
        errors.append(float(np.abs(np.mean(path[20:], axis=0) - goal).max()))
    assert errors[0] < 0.05
    assert errors[1] > 0.2


def test_model_that_is_not_touched_by_anyone_stays() -> None:
    result, _ = run(codec="topk(0.05)", num_rounds=1, feedback="none")
    changed = np.count_nonzero(weights(result.arrays))
    assert 1 <= changed <= 8  # four clients send two entries each


def test_messages_of_a_round_share_one_payload() -> None:
    grid = toy_grid(numpy_client_app(pull_client_fn))
    strategy = CompressedFedAvg(min_train_nodes=4)
    config = records.pack_meta({})
    messages = list(strategy.configure_train(1, initial_arrays(), config, grid))
    assert len({id(message.content["arrays"]) for message in messages}) == 1
    assert len({id(message.content["config"]) for message in messages}) == 1
    assert payload_bytes(messages[0]) < 4 * 40 + 32 + 40


def test_clients_are_told_how_to_reply_and_how_many_they_are() -> None:
    grid = toy_grid(numpy_client_app(pull_client_fn))
    strategy = CompressedFedAvg(feedback="dgc(0.5)", min_train_nodes=4, clients_per_round=3)
    arrays = initial_arrays()
    messages = list(strategy.configure_train(1, arrays, records.pack_meta({}), grid))
    meta = messages[0].content.config_records["fl-opt"]
    assert (meta["feedback"], meta["participants"]) == ("dgc(0.5)", 3)
    strategy.clients_per_round = 2
    again = list(strategy.configure_train(2, arrays, records.pack_meta({}), grid))
    assert again[0].content.config_records["fl-opt"]["participants"] == 2
    assert again[0].content["arrays"] is messages[0].content["arrays"]
    assert meta["participants"] == 3


def tamper(partition_id: int, change: Callable[[Message], Message | None]) -> Any:
    """Return an app whose client of one partition sends something else."""

    def mod(message: Message, context: Context, app: ClientApp) -> Message:
        reply = app(message, context)
        is_training = message.metadata.message_type == "train"
        if context.node_config["partition-id"] != partition_id or not is_training:
            return reply
        return change(reply) or reply

    return mod


def with_payload(edit: Callable[[bytes], bytes]) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        payload = edit(records.find_payload(reply.content))
        reply.content["arrays"] = records.pack_payload(payload)

    return change


def with_metric(name: str, value: Any) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content.metric_records["metrics"][name] = value

    return change


def with_meta(name: str, value: Any) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content.config_records["fl-opt"][name] = value

    return change


def drop_metrics(reply: Message) -> None:
    del reply.content["metrics"]


def raise_error(reply: Message) -> Message:
    raise RuntimeError("sensor on fire")


def plain_arrays(reply: Message) -> None:
    reply.content["arrays"] = ArrayRecord({"w": Array(np.zeros(3))})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_payload(lambda p: p[:-2]), "truncated payload"),
        (with_payload(lambda p: p[:20] + bytes([p[20] ^ 1]) + p[21:]), "checksum"),
        (with_payload(lambda p: p + b"\0" * 50), "does not start with 'flo'"),
        (with_payload(lambda p: p + p), "update, exact, update, exact; the model needs 2"),
        (with_meta("update", "1"), "'update' = '1' is not int"),
        (with_payload(lambda p: b"GIF89a" + p), "does not start with 'flo'"),
        (with_meta("spec", "0123456789abcdef"), "another model"),
        (with_meta("version", 7), "version 7, expected 0"),
        (with_meta("protocol", 9), "protocol 9"),
        (with_metric("num-examples", 0), "num-examples = 0 is not a whole number"),
        (with_metric("num-examples", -5), "num-examples = -5 is not"),
        (with_metric("num-examples", 10**12), "num-examples = 1000000000000 is not"),
        (with_metric("num-examples", 2.5), "num-examples = 2.5 is not"),
        (with_metric("train-loss", float("nan")), "metric 'train-loss' = nan is not finite"),
        (with_metric("curve", [1.0, float("inf")]), "metric 'curve'"),
        (drop_metrics, "0 MetricRecords"),
        (plain_arrays, "no coded payload"),
        (raise_error, "sensor on fire"),
    ],
)
def test_a_bad_reply_is_refused_with_its_reason_and_the_round_goes_on(
    change: Callable[[Message], Message | None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result, recorder = run(tamper(2, change), evaluate_every=0)
    np.testing.assert_allclose(weights(result.arrays), expected_mean(0, 1, 3), atol=1e-6)
    record = recorder.rounds[1]
    assert (record.participants, record.failures) == (3, 1)
    assert [client.error is None for client in record.clients] == [True, True, False, True]
    assert reason in str(record.clients[2].error)
    assert reason in caplog.text


def test_an_update_with_nan_never_leaves_the_client(caplog: pytest.LogCaptureFixture) -> None:
    def mod(message: Message, context: Context, app: ClientApp) -> Message:
        class Broken:
            pass

        if context.node_config["partition-id"] == 1:
            return numpy_client_app(_nan_client)(message, context)
        return app(message, context)

    result, recorder = run(mod, evaluate_every=0)
    np.testing.assert_allclose(weights(result.arrays), expected_mean(0, 2, 3), atol=1e-6)
    assert "array 'weight' holds nan" in str(recorder.rounds[1].clients[1].error)


def _nan_client(context: Context) -> Any:
    client = pull_client_fn(context)
    fit = client.fit

    def broken(parameters: Any, config: Any) -> Any:
        (weight, steps), count, metrics = fit(parameters, config)
        weight[0, 3] = np.nan
        return [weight, steps], count, metrics

    client.fit = broken  # type: ignore[method-assign]
    return client


def test_below_the_minimum_the_model_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    result, recorder = run(tamper(2, raise_error), min_replies=4, num_rounds=2)
    assert not weights(result.arrays).any()
    assert [r.participants for r in recorder.rounds[1:]] == [3, 3]
    assert "3 usable replies, 4 needed: the model stays as it was" in caplog.text


def test_clients_that_do_not_answer_in_time_count_as_failures() -> None:
    recorder = Recorder()
    strategy = CompressedFedAvg(
        "none", observers=[recorder], evaluate_every=0, min_train_nodes=1, min_available_nodes=1
    )
    strategy.start(
        toy_grid(numpy_client_app(pull_client_fn)), initial_arrays(), 1, timeout=0.01
    )
    assert (recorder.rounds[1].participants, recorder.rounds[1].failures) == (0, 4)


def test_choice_of_clients_depends_on_seed_and_round_only() -> None:
    def chosen(seed: int) -> list[list[int]]:
        _, recorder = run(
            num_clients=30, num_rounds=3, seed=seed, clients_per_round=5, evaluate_every=0
        )
        return [[client.node_id for client in r.clients] for r in recorder.rounds[1:]]

    first = chosen(1)
    assert [len(nodes) for nodes in first] == [5, 5, 5]
    assert len({tuple(nodes) for nodes in first}) == 3
    assert first == chosen(1) != chosen(2)


def test_more_participants_than_clients_is_one_clear_error() -> None:
    with pytest.raises(
        ConfigError, match="a round needs 9 clients, but 4 are connected after 5 s"
    ):
        run(clients_per_round=9, node_timeout=5.0)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"codec": "topk(2)"}, "density = 2.0"),
        ({"feedback": "residul"}, "unknown feedback 'residul'; known are none, residual"),
        (
            {"downlink": DownlinkOptions("full", "stc")},
            "downlink codec 'stc' would damage the model",
        ),
        ({"downlink": DownlinkOptions("fast")}, "downlink.mode = 'fast' is not one of full"),
        ({"server_optimizer": "sgd(eta=-1)"}, "eta"),
        ({"min_replies": 0}, "min_replies = 0"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        CompressedFedAvg(**arguments)


def test_a_server_step_that_overflows_ends_the_run_with_one_clear_error() -> None:
    with pytest.raises(ModelError, match="NaN or infinity: lower its rate"):
        run(server_optimizer="sgd(eta=1e39)")


def test_a_model_without_weights_is_refused() -> None:
    strategy = CompressedFedAvg()
    with pytest.raises(ModelError, match="no floating-point arrays"):
        strategy.start(
            toy_grid(numpy_client_app(pull_client_fn)),
            ArrayRecord({"n": Array(np.zeros(3, int))}),
            1,
        )


def test_evaluation_by_clients_is_weighted_and_only_when_due() -> None:
    result, _ = run(num_rounds=4, evaluate_every=2)
    assert sorted(result.evaluate_metrics_clientapp) == [2, 4]
    expected = sum(
        (1 + p) * float(np.square(weights(result.arrays) - target(p)).mean()) for p in range(4)
    )
    assert result.evaluate_metrics_clientapp[4]["loss"] == pytest.approx(
        expected / 10, rel=1e-5
    )


def test_records_count_what_was_sent() -> None:
    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"loss": 1.0, "accuracy": server_round / 10})

    _, recorder = run(
        codec="topk(0.1) | ternary", num_rounds=2, evaluate_every=2, evaluate_fn=evaluate
    )
    start, first, second = recorder.rounds
    assert [r.server_round for r in recorder.rounds] == [0, 1, 2]
    assert (start.accuracy, first.accuracy, second.accuracy) == (0.0, 0.1, 0.2)
    assert start.bytes_down == start.bytes_up == 0
    assert first.dense_bytes_down == first.dense_bytes_up == 4 * 4 * 40
    assert second.dense_bytes_down == 2 * first.dense_bytes_down
    assert second.dense_bytes_up == first.dense_bytes_up
    payloads = {client.bytes_down for client in first.clients}
    assert len(payloads) == 1  # everybody got the same
    assert 160 < payloads.pop() < 160 + 64
    assert second.bytes_down > 2 * 160 * 4  # the evaluation carries the model again
    assert first.bytes_up < first.dense_bytes_up / 2
    assert first.bytes_down == sum(client.bytes_down for client in first.clients)
    assert first.message_bytes_down > first.bytes_down
    assert first.message_bytes_up > first.bytes_up
    assert first.virtual_seconds is not None
    parts = first.parts
    assert first.virtual_seconds == pytest.approx(
        parts["download"] + parts["compute"] + parts["upload"], rel=1e-6
    )
    assert {"broadcast", "wait", "decode-aggregate", "train", "encode"} <= set(parts)
    assert first.federated_loss is None
    assert second.federated_loss is not None
    assert first.train_loss is not None
    assert recorder.calls[:2] == ["start 2", "reply 1: 1/4"]
    assert recorder.calls[-1] == "end"


def test_observers_hear_of_the_end_when_a_run_fails() -> None:
    recorder = Recorder()
    with pytest.raises(ConfigError):
        run(clients_per_round=9, node_timeout=0.0, observers=[recorder])
    assert recorder.calls == ["start 1", "end"]


def test_two_runs_with_one_seed_are_bit_identical() -> None:
    def once() -> tuple[bytes, list[tuple[Any, ...]]]:
        result, recorder = run(
            codec="topk(0.1) | uniform(3, 8, stochastic)",
            num_rounds=5,
            seed=3,
            clients_per_round=3,
        )
        rows = [
            (r.bytes_up, r.bytes_down, r.virtual_seconds, r.train_loss, r.federated_loss)
            for r in recorder.rounds
        ]
        return weights(result.arrays).tobytes(), rows

    assert once() == once()


def test_content_of_a_reply_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is collected for the metrics holds no payload."""
    seen: list[RecordDict] = []

    def aggregate(contents: list[RecordDict], key: str) -> MetricRecord:
        seen.extend(contents)
        return MetricRecord({"train-loss": 0.0})

    run(train_metrics_aggr_fn=aggregate, evaluate_every=0)
    assert len(seen) == 4
    assert all(list(content) == ["metrics"] for content in seen)
