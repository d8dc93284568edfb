"""Clients on the virtual engine, whatever they hold, lose or miss: all of them are served."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Error, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fl_opt.client import compression_mod, numpy_client_app
from fl_opt.exchange.downlink import DownlinkOptions, Kind
from fl_opt.exchange.traffic import payload_bytes
from fl_opt.simulation.faults import FaultPlan
from tests.strategies.federation import expected_mean, run, weights
from tests.toy import (
    evaluate_message,
    first_arrays,
    initial_arrays,
    message_app,
    pull_client_fn,
    target,
)

KEEPING = {
    "shared": DownlinkOptions("shared", "ecsq(3.0)", "seed"),
    "per client": DownlinkOptions("per-client", "int8", "seed"),
    "auto": DownlinkOptions("auto", "ecsq(3.0)", "seed"),
}
APPS = {
    "numpy client": lambda: numpy_client_app(pull_client_fn, first_arrays),
    "message app with mod": lambda: message_app(
        [compression_mod(lambda _: initial_arrays(), evaluate_message)]
    ),
}


@pytest.fixture(params=KEEPING)
def downlink(request: pytest.FixtureRequest) -> DownlinkOptions:
    return KEEPING[request.param]


def loss_of(model: NDArray[np.float32]) -> float:
    """The federated loss of a model: the mean over clients, weighted by their examples."""
    losses = [(1 + p) * float(np.square(model - target(p)).mean()) for p in range(4)]
    return sum(losses) / 10


def models_of(**arguments: Any) -> tuple[list[NDArray[np.float32]], Any]:
    """The model after each round, from 0, and the recorder."""
    path: list[NDArray[np.float32]] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> None:
        path.append(weights(arrays))

    _, recorder = run(evaluate_fn=evaluate, **arguments)
    return path, recorder


class TestReferences:
    @pytest.mark.parametrize("app", APPS)
    def test_nobody_is_sent_a_model_that_it_can_build(
        self, downlink: DownlinkOptions, app: str
    ) -> None:
        result, recorder = run(app=APPS[app](), downlink=downlink, evaluate_every=0)
        first = recorder.rounds[1]
        assert (first.bytes_down, first.participants, first.served_again) == (0, 4, 0)
        assert first.bytes_down_by_kind == {Kind.FROM_SEED: 0}
        np.testing.assert_allclose(weights(result.arrays), expected_mean(0, 1, 2, 3), atol=1e-6)

    def test_who_cannot_build_it_gets_a_snapshot_in_the_same_round(
        self, downlink: DownlinkOptions
    ) -> None:
        result, recorder = run(
            app=numpy_client_app(pull_client_fn),
            downlink=downlink,
            evaluate_every=0,
            num_rounds=2,
        )
        first, second = recorder.rounds[1:]
        assert (first.participants, first.failures, first.served_again) == (4, 0, 4)
        assert first.bytes_down_by_kind[Kind.SNAPSHOT] > 4 * 4 * 40
        assert (second.participants, second.served_again) == (4, 0)
        assert Kind.SNAPSHOT not in second.bytes_down_by_kind
        assert int(result.arrays["steps"].numpy()) == 2

    def test_who_has_lost_its_state_is_served_in_the_same_round(
        self, downlink: DownlinkOptions
    ) -> None:
        plan = FaultPlan(seed=3, restart=0.3)
        _, recorder = run(downlink=downlink, faults=plan, num_rounds=8, evaluate_every=0)
        rounds = recorder.rounds[1:]
        assert [(r.participants, r.failures) for r in rounds] == [(4, 0)] * 8
        assert sum(r.served_again for r in rounds) > 3
        assert sum(r.lost for r in rounds) > 3

    def test_an_evaluation_of_a_model_that_is_held_carries_nothing(
        self, downlink: DownlinkOptions
    ) -> None:
        """And a training message after an evaluation of the same model does not, either."""
        sent: list[tuple[str, str, int]] = []

        def watch(message: Message, context: Context, app: ClientApp) -> Message:
            kind, group = message.metadata.message_type, message.metadata.group_id
            if context.node_config["partition-id"] == 0:
                sent.append((group, kind, payload_bytes(message)))
            return app(message, context)

        run(watch, downlink=downlink, num_rounds=2)
        carried = [(group, kind, size > 0) for group, kind, size in sent]
        assert carried == [
            ("1", "train", False),
            ("1", "evaluate", True),
            ("2", "train", False),
            ("2", "evaluate", True),
        ]

    def test_a_round_without_a_step_leaves_nothing_to_send(
        self, downlink: DownlinkOptions
    ) -> None:
        _, recorder = run(
            downlink=downlink, num_rounds=3, num_clients=3, faults=FaultPlan(corrupt_up=1.0)
        )
        assert [r.participants for r in recorder.rounds[1:]] == [0, 0, 0]
        assert [r.bytes_down for r in recorder.rounds[1:]] == [0, 0, 0]

    def test_damaged_messages_are_sent_again(self, downlink: DownlinkOptions) -> None:
        plan = FaultPlan(seed=2, corrupt_down=0.3)
        _, recorder = run(downlink=downlink, faults=plan, num_rounds=6, evaluate_every=0)
        rounds = recorder.rounds[1:]
        assert sum(r.served_again for r in rounds) > 2
        assert sum(r.participants for r in rounds) >= 22


class TestPiggybackEvaluation:
    @pytest.mark.parametrize("app", APPS)
    def test_is_that_of_the_model_before_the_round(self, app: str) -> None:
        models, recorder = models_of(
            app=APPS[app](), num_rounds=4, evaluate_every=2, evaluate_mode="piggyback"
        )
        found = [r.federated_loss for r in recorder.rounds]
        assert found[0] is found[1] is found[3] is None
        assert found[2] == pytest.approx(loss_of(models[1]), rel=1e-5)
        assert found[4] == pytest.approx(loss_of(models[3]), rel=1e-5)

    def test_costs_no_messages_and_changes_no_model(self) -> None:
        arguments: dict[str, Any] = {"num_rounds": 3, "downlink": KEEPING["shared"]}
        models, recorder = models_of(**arguments, evaluate_mode="piggyback")
        without, quiet = models_of(**arguments, evaluate_every=0)
        np.testing.assert_array_equal(models, without)
        for ours, theirs in zip(recorder.rounds, quiet.rounds, strict=True):
            assert (ours.bytes_down, ours.bytes_up) == (theirs.bytes_down, theirs.bytes_up)
            assert ours.message_bytes_up - theirs.message_bytes_up < 4 * 300

    def test_a_client_that_is_served_again_evaluates_once(self) -> None:
        models, recorder = models_of(
            app=numpy_client_app(pull_client_fn),
            downlink=KEEPING["per client"],
            evaluate_mode="piggyback",
        )
        assert recorder.rounds[1].served_again == 4
        assert recorder.rounds[1].federated_loss == pytest.approx(loss_of(models[0]), rel=1e-5)


class TestLateReplies:
    PLAN = FaultPlan(seed=1, delay=0.4, delay_seconds=30.0)
    OPTIONS: dict[str, Any] = {  # noqa: RUF012
        "faults": PLAN,
        "timeout": 10.0,
        "num_rounds": 12,
        "num_clients": 8,
        "clients_per_round": 3,
        "evaluate_every": 0,
    }

    def test_accepted_into_a_later_step(self, downlink: DownlinkOptions) -> None:
        _, recorder = run(**self.OPTIONS, downlink=downlink, late_replies="accept")
        assert sum(r.stale for r in recorder.rounds) > 2
        assert sum(r.failures for r in recorder.rounds) > 2

    def test_refused_so_that_they_return(self, downlink: DownlinkOptions) -> None:
        _, recorder = run(**self.OPTIONS, downlink=downlink, late_replies="refuse")
        assert sum(r.stale for r in recorder.rounds) == 0
        assert sum(r.ignored for r in recorder.rounds) > 2
        assert sum(r.returned for r in recorder.rounds) > 2


class TestDuplicates:
    @pytest.mark.parametrize("mode", [None, *KEEPING])
    def test_replies_that_come_twice_count_once(self, mode: str | None) -> None:
        arguments: dict[str, Any] = {"num_rounds": 4, "codec": "topk(0.2) | ternary"}
        if mode is not None:
            arguments["downlink"] = KEEPING[mode]
        once, _ = run(**arguments)
        plan = FaultPlan(seed=1, duplicate_up=1.0)
        twice, recorder = run(**arguments, faults=plan)
        np.testing.assert_array_equal(weights(twice.arrays), weights(once.arrays))
        assert {r.participants for r in recorder.rounds[1:]} == {4}

    @pytest.mark.parametrize("app", APPS)
    @pytest.mark.parametrize("mode", [None, *KEEPING])
    def test_messages_that_come_twice_are_answered_alike(
        self, mode: str | None, app: str
    ) -> None:
        """The second time the update is sent once more: the client does not train again."""
        arguments: dict[str, Any] = {"num_rounds": 4, "evaluate_every": 0}
        if mode is not None:
            arguments["downlink"] = KEEPING[mode]
        once, _ = run(app=APPS[app](), **arguments)
        plan = FaultPlan(seed=1, duplicate_down=1.0)
        twice, recorder = run(app=APPS[app](), **arguments, faults=plan)
        # Replies come in another order, which shows in the rounding of sums alone.
        np.testing.assert_allclose(weights(twice.arrays), weights(once.arrays), atol=5e-3)
        told = [(r.participants, r.failures, r.served_again) for r in recorder.rounds[1:]]
        assert told == [(4, 0, 0)] * 4
        for number, metrics in once.train_metrics_clientapp.items():
            found = twice.train_metrics_clientapp[number]
            assert dict(found) == pytest.approx(dict(metrics), rel=0.02)


class TestErrors:
    @pytest.mark.parametrize("kind", ["train", "evaluate"])
    def test_of_a_client_are_told_and_the_others_count(
        self, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def mod(message: Message, context: Context, app: ClientApp) -> Message:
            ours = context.node_config["partition-id"] == 2
            if ours and message.metadata.message_type == kind:
                return Message(Error(7, "battery\nempty"), reply_to=message)
            return app(message, context)

        with caplog.at_level(logging.WARNING):
            result, recorder = run(mod)
        record = recorder.rounds[1]
        assert (record.participants, record.failures) == (4 - (kind == "train"), 1)
        assert record.clients[2].error == "client failed: battery empty"
        assert "battery empty" in caplog.text
        there = [p for p in range(4) if kind == "evaluate" or p != 2]
        np.testing.assert_allclose(weights(result.arrays), expected_mean(*there), atol=1e-6)
        assert record.federated_loss is not None

    def test_a_client_that_never_understands_is_given_up(
        self, downlink: DownlinkOptions
    ) -> None:
        """Its messages arrive damaged each time; the round goes on without it."""

        def mod(message: Message, context: Context, app: ClientApp) -> Message:
            if context.node_config["partition-id"] == 1:
                message.content.config_records["fl-opt"]["reference"] = "0123456789abcdef"
            return app(message, context)

        result, recorder = run(mod, downlink=downlink, evaluate_every=0)
        record = recorder.rounds[1]
        assert (record.participants, record.failures, record.served_again) == (3, 1, 3)
        assert "client cannot follow: the reference has" in str(record.clients[1].error)
        np.testing.assert_allclose(weights(result.arrays), expected_mean(0, 2, 3), atol=1e-6)

    def test_a_late_answer_to_an_evaluation_is_no_update(self) -> None:
        plan = FaultPlan(seed=2, delay=0.5, delay_seconds=20.0)
        _, recorder = run(
            faults=plan, timeout=8.0, num_rounds=8, num_clients=6, clients_per_round=4
        )
        assert sum(r.participants for r in recorder.rounds) > 8
        assert all(client.error is None for r in recorder.rounds for client in r.clients)
