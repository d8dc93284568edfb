"""Clients that attack: refused one by one, and the honest ones learn as if they were alone."""

from __future__ import annotations

import math
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from fl_opt.codecs import build_codec
from fl_opt.exchange import records
from fl_opt.wire import FrameKind, Writer, split_frames
from tests.fixtures.attacks import ATTACKS
from tests.strategies.cutting import bits
from tests.strategies.federation import run, weights
from tests.test_wire import reseal
from tests.toy import SIZE

HOSTILE = 1002
ROUNDS = 4
OPTIONS: dict[str, Any] = {"num_rounds": ROUNDS, "codec": "all | uniform(bits=8)"}

Attack = Callable[[RecordDict], None]
"""Spoils the content of a reply that was honest."""


def payload_of(content: RecordDict) -> bytes:
    return records.find_payload(content)


def with_payload(change: Callable[[bytes], bytes]) -> Attack:
    def attack(content: RecordDict) -> None:
        content[records.ARRAYS] = records.pack_payload(change(payload_of(content)))

    return attack


def with_meta(**values: Any) -> Attack:
    def attack(content: RecordDict) -> None:
        meta = dict(content.config_records[records.META])
        for key, value in values.items():
            meta[key.replace("_", "-")] = value
        content[records.META] = ConfigRecord(meta)

    return attack


def with_metrics(**values: Any) -> Attack:
    def attack(content: RecordDict) -> None:
        metrics = content.metric_records["metrics"]
        for key, value in values.items():
            metrics[key.replace("_", "-")] = value

    return attack


def without(key: str) -> Attack:
    def attack(content: RecordDict) -> None:
        del content[key]

    return attack


def with_record(key: str, record: Any) -> Attack:
    def attack(content: RecordDict) -> None:
        content[key] = record

    return attack


def coded(vector: Any) -> Callable[[bytes], bytes]:
    """Put another update in front of the counter, which travels in a frame of its own."""
    return lambda p: build_codec("none").encode(np.asarray(vector, np.float32)) + counter(p)


def counter(payload: bytes) -> bytes:
    (_, update), _ = split_frames(payload)
    return payload[payload.index(bytes(update)) + len(update) :]


def not_finite(value: float) -> Callable[[bytes], bytes]:
    """A payload of float32 with a number that no encoder writes, under a good checksum."""
    plain = build_codec("none").encode(np.full(SIZE, 7.25, np.float32))
    at = plain.index(np.float32(7.25).tobytes())
    spoilt = plain[:at] + np.float32(value).tobytes() + plain[at + 4 :]
    return lambda p: reseal(spoilt) + counter(p)


def huge_frame(payload: bytes) -> bytes:
    writer = Writer()
    writer.varint(1 << 40)
    return writer.to_frame(FrameKind.UPDATE) + counter(payload)


REFUSED: dict[str, tuple[Attack, str]] = {
    "no payload": (with_payload(lambda _: b""), "payload"),
    "noise": (with_payload(lambda p: np.random.default_rng(1).bytes(len(p))), "payload|magic"),
    "cut off": (with_payload(lambda p: p[:-1]), "payload|frame|checksum"),
    "cut off, resealed": (with_payload(lambda p: reseal(p[:-1])), "."),
    "padded": (with_payload(lambda p: p + b"\0"), "."),
    "twice": (with_payload(lambda p: p + p), "."),
    "a bit changed": (with_payload(lambda p: p[:-1] + bytes([p[-1] ^ 1])), "checksum"),
    "claims 2**40 entries": (with_payload(huge_frame), "."),
    "64 MB": (with_payload(lambda p: p + bytes(1 << 26)), "."),
    "of another size": (with_payload(coded(np.ones(SIZE + 1))), "."),
    "NaN": (with_payload(not_finite(math.nan)), "finite|NaN"),
    "infinity": (with_payload(not_finite(math.inf)), "finite|NaN"),
    "plain arrays": (with_record("arrays", ArrayRecord([np.zeros(3)])), "payload"),
    "a pickle": (
        with_record(
            "arrays", ArrayRecord({"payload": Array("uint8", (3,), "pickle", b"c.\n")})
        ),
        "serialisation type 'pickle'",
    ),
    "arrays missing": (without("arrays"), "payload"),
    "no metrics": (without("metrics"), "MetricRecord"),
    "two records of metrics": (with_record("more", MetricRecord({"x": 1})), "MetricRecord"),
    "another protocol": (with_meta(protocol=99), "protocol"),
    "no record beside it": (without(records.META), "fl-opt"),
    "a stale version": (with_meta(version=0), "version"),
    "another model": (with_meta(spec="0" * 32), "model"),
    "text for a number": (with_meta(update="first"), "'update' = 'first' is not int"),
    "a sub-model nobody has": (with_meta(width=0.5), "width"),
    "no examples": (with_metrics(num_examples=0), "whole number"),
    "-5 examples": (with_metrics(num_examples=-5), "whole number"),
    "10**18 examples": (with_metrics(num_examples=10**18), "whole number"),
    "half an example": (with_metrics(num_examples=0.5), "whole number"),
    "a list of examples": (with_metrics(num_examples=[1, 2]), "whole number"),
    "loss NaN": (with_metrics(train_loss=math.nan), "finite"),
    "loss infinite": (with_metrics(train_loss=-math.inf), "finite"),
    "a metric with NaN in a list": (with_metrics(other=[1.0, math.nan]), "finite"),
    "an update of 10**30": (with_payload(coded(np.full(SIZE, 1e30))), "max-update-norm"),
}


HARMLESS: dict[str, Attack] = {
    "norm NaN": with_meta(residual_norm=math.nan),
    "norm of -1": with_meta(update_norm=-1.0),
    "norm infinite": with_meta(update_norm=math.inf),
    "an unknown entry": with_meta(surprise="?" * 10_000),
    "another record": with_record("more", ConfigRecord({"x": b"\0" * 10_000})),
}


def tampering(attack: Attack) -> Any:
    """Let one client be honest in round 1, and attack from then on."""
    rounds = 0

    def tamper(message: Message, context: Context, app: ClientApp) -> Message:
        nonlocal rounds
        reply = app(message, context)
        if context.node_id == HOSTILE and message.metadata.message_type == "train":
            rounds += 1
            if rounds > 1:
                attack(reply.content)
        return reply

    return tamper


def failing(content: RecordDict) -> None:
    content.clear()


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_a_reason_and_changes_nothing(name: str) -> None:
    attack, reason = REFUSED[name]
    # A bound for the norm that honest updates do not meet.
    options = {**OPTIONS, "max_update_norm": "fixed(100.0)"}
    result, recorder = run(tampering(attack), **options)
    alone, _ = run(tampering(failing), **options)
    for record in recorder.rounds[2:]:
        assert (record.participants, record.failures) == (3, 1)
        [error] = [client.error for client in record.clients if client.error]
        assert error is not None
        assert re.search(reason, error), error
        assert len(error) < 400
    assert bits(result.arrays) == bits(alone.arrays)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_beside_the_point_is_passed_over(name: str) -> None:
    result, recorder = run(tampering(HARMLESS[name]), **OPTIONS)
    assert [record.participants for record in recorder.rounds[1:]] == [4] * ROUNDS
    honest, _ = run(**OPTIONS)
    # A longer reply arrives later, and sums depend on the order.
    np.testing.assert_allclose(weights(result.arrays), weights(honest.arrays), rtol=1e-5)


@pytest.mark.parametrize("update", [-1, 0, 1, 1 << 62])
def test_an_update_that_nobody_asked_for_does_not_count(update: int) -> None:
    result, recorder = run(tampering(with_meta(update=update)), **OPTIONS)
    assert [record.participants for record in recorder.rounds[2:]] == [3] * (ROUNDS - 1)
    alone, _ = run(tampering(failing), **OPTIONS)
    assert bits(result.arrays) == bits(alone.arrays)


def test_an_update_that_was_used_is_not_used_again() -> None:
    kept: dict[str, Any] = {}

    def replay(message: Message, context: Context, app: ClientApp) -> Message:
        reply = app(message, context)
        if context.node_id == HOSTILE and message.metadata.message_type == "train":
            kept.setdefault("content", dict(reply.content))
            reply.content = RecordDict(kept["content"])
        return reply

    result, recorder = run(replay, **OPTIONS)
    for record in recorder.rounds[2:]:
        assert record.participants == 3
    assert np.isfinite(weights(result.arrays)).all()


def test_one_client_cannot_speak_for_another() -> None:
    """Updates are known by the node that was asked, whatever a reply says."""
    stolen: list[int] = []

    def speak(message: Message, context: Context, app: ClientApp) -> Message:
        reply = app(message, context)
        if message.metadata.message_type != "train":
            return reply
        meta = reply.content.config_records[records.META]
        if context.node_id == HOSTILE - 1:
            stolen.append(int(meta["update"]))  # type: ignore[arg-type]
        if context.node_id == HOSTILE and stolen:
            with_meta(update=stolen[-1] + 1)(reply.content)
        return reply

    _, recorder = run(speak, **OPTIONS)
    assert [record.participants for record in recorder.rounds[1:]] == [3] * ROUNDS


def test_a_client_that_never_can_follow_is_asked_twice_more_and_given_up() -> None:
    def helpless(message: Message, context: Context, app: ClientApp) -> Message:
        reply = app(message, context)
        if context.node_id == HOSTILE and message.metadata.message_type == "train":
            asked.append(message.metadata.message_id)
            with_meta(need="everything", seed=False)(reply.content)
        return reply

    asked: list[str] = []
    _, recorder = run(helpless, **OPTIONS)
    assert [record.participants for record in recorder.rounds[1:]] == [3] * ROUNDS
    assert len(asked) == 3 * ROUNDS


def test_a_flood_of_metrics_is_survived() -> None:
    flood = with_metrics(**{f"k{i}": 1.0 for i in range(100_000)})
    _, recorder = run(tampering(flood), **OPTIONS)
    assert len(recorder.rounds) == ROUNDS + 1


def test_memory_does_not_follow_what_a_payload_claims() -> None:
    tracemalloc.start()
    try:
        run(tampering(with_payload(huge_frame)), **OPTIONS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_corpus_of_attacks_is_refused(attack: Any) -> None:
    spoil = with_payload(lambda p: attack.payload + counter(p))
    result, recorder = run(tampering(spoil), **OPTIONS)
    assert [record.failures for record in recorder.rounds[2:]] == [1] * (ROUNDS - 1)
    assert np.isfinite(weights(result.arrays)).all()
