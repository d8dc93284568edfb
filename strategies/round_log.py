"""Keeps the record of the round that is under way and tells the observers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fl_opt.exchange import records
from fl_opt.exchange.downlink import Kind
from fl_opt.exchange.incoming import Answer
from fl_opt.exchange.ladder import Level
from fl_opt.exchange.traffic import message_bytes, payload_bytes
from fl_opt.profiling.memory import peak_memory_bytes
from fl_opt.profiling.rounds import ClientRecord, RoundObserver, RoundRecord
from fl_opt.spans import SpanLog, from_json, measuring, span


class RoundLog:
    """Counts bytes, clocks parts and closes a record at the end of each round.

    Parameters
    ----------
    observers : sequence of RoundObserver
        Told in this order.
    spans : bool
        Whether to note what the parts consist of, and what clients say of theirs.
    """

    def __init__(self, observers: Sequence[RoundObserver], *, spans: bool = False) -> None:
        self._observers = observers
        self._spans = SpanLog() if spans else None
        self._record = RoundRecord(0)
        self._clients: dict[int, ClientRecord] = {}
        self._clock: Any = None
        self._timing_of: Any = None
        self._dense_bytes = 0
        self._expected = 0
        self._sent_at = time.perf_counter()
        self._wall = time.perf_counter()
        self._virtual = 0.0

    @contextmanager
    def run(self, grid: Grid, num_rounds: int, first: int = 0) -> Iterator[None]:
        """Tell the observers of start and end; take the virtual clock from the grid, if any.

        ``first`` is the number of the first record.
        """
        self._clock = getattr(grid, "clock", None)
        self._timing_of = getattr(grid, "timing_of", None)
        for observer in self._observers:
            observer.on_start(num_rounds)
        self._begin(first)
        try:
            yield
        finally:
            for observer in self._observers:
                observer.on_end()

    def expect(self, updates: int) -> None:
        """Note how many training replies there are to be, for those who show progress."""
        self._expected = updates

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a part of the round."""
        begin = time.perf_counter()
        try:
            with measuring(self._spans), span(name):
                yield
        finally:
            parts = self._record.parts
            parts[name] = parts.get(name, 0.0) + time.perf_counter() - begin

    def sent(self, messages: Sequence[tuple[Message, Kind]], dense_bytes: int) -> None:
        """Count messages that stand for a model of ``dense_bytes`` bytes as float32.

        Those that repeat what a client could not use stand for none.
        """
        if dense_bytes:
            self._sent_at = time.perf_counter()
            self._dense_bytes = dense_bytes
        by_kind = self._record.bytes_down_by_kind
        for message, kind in messages:
            client = self._client(message.metadata.dst_node_id)
            size = payload_bytes(message)
            client.bytes_down += size
            by_kind[kind] = by_kind.get(kind, 0) + size
            self._record.message_bytes_down += message_bytes(message)
            self._record.dense_bytes_down += dense_bytes

    def pushed(self, part: str) -> None:
        """Note that the last messages are on their way; the time since goes to a part."""
        parts = self._record.parts
        parts[part] = parts.get(part, 0.0) + time.perf_counter() - self._sent_at

    def received(self, reply: Message, *, training: bool, received: int) -> None:
        """Count a reply, whatever it is worth."""
        record = self._record
        record.message_bytes_up += message_bytes(reply)
        if reply.has_content():
            client = self._client(reply.metadata.src_node_id)
            client.bytes_up += payload_bytes(reply)
            self._note_costs(client, reply)
        if not training:
            return
        client = self._client(reply.metadata.src_node_id)
        client.arrived = time.perf_counter() - self._wall
        if self._timing_of is not None:
            timing = self._timing_of(reply)
            client.arrived = self._clock.time() - self._virtual
            client.download_seconds = record.parts["download"] = timing.download
            client.compute_seconds = record.parts["compute"] = timing.compute
            client.upload_seconds = record.parts["upload"] = timing.upload
        for observer in self._observers:
            observer.on_reply(record.server_round, received, self._expected)

    def accepted(
        self, node_id: int, num_examples: int, *, staleness: int, seconds: float
    ) -> None:
        """Note a training reply that was used."""
        self._record.participants += 1
        self._record.stale += staleness > 0
        self._record.dense_bytes_up += self._dense_bytes
        client = self._client(node_id)
        client.num_examples = num_examples
        client.staleness.append(staleness)
        client.seconds = seconds if math.isfinite(seconds) else 0.0

    def work_seconds(self, reply: Message) -> float:
        """Return how long a client has worked for its reply, on the clock of the round."""
        if self._timing_of is not None:
            return float(self._timing_of(reply).compute)
        meta: Mapping[str, Any] = reply.content.config_records.get(records.META, {})
        parts = (_number(meta, "train-seconds"), _number(meta, "encode-seconds"))
        return max(sum(part or 0.0 for part in parts), 0.0)

    def adapted(self, node_id: int, level: Level, mbps: tuple[float, float] | None) -> None:
        """Note which codecs were chosen for a client, and what its link is thought to be."""
        client = self._client(node_id)
        client.codec_up, client.codec_down = level.up, level.down or ""
        if mbps is not None:
            client.mbps_down, client.mbps_up = mbps

    def refused(self, node_id: int, reason: str) -> None:
        """Note a reply that could not be used."""
        self._record.failures += 1
        self._client(node_id).error = reason

    def noted(self, answer: Answer) -> None:
        """Note what a client says about its own state."""
        self._record.served_again += bool(answer.need)
        self._record.returned += answer.returned
        self._record.lost += answer.lost

    def ignored(self, node_id: int) -> None:
        """Note a reply that was a duplicate, or came too late to count."""
        self._record.ignored += 1
        self._client(node_id)

    def missing(self, count: int) -> None:
        """Note training replies that never came."""
        self._record.failures += count

    def trained(self, metrics: Mapping[str, Any]) -> None:
        """Note the aggregated metrics of training."""
        self._record.train_loss = _number(metrics, "train-loss")

    def evaluated(self, metrics: Mapping[str, Any]) -> None:
        """Note the aggregated metrics of evaluation by clients."""
        self._record.federated_loss = _number(metrics, "loss")
        self._record.federated_accuracy = _number(metrics, "accuracy")

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Close the round with the metrics of central evaluation (empty if there was none)."""
        record = self._record
        record.loss = _number(metrics, "loss")
        record.accuracy = _number(metrics, "accuracy")
        record.wall_seconds = time.perf_counter() - self._wall
        if self._clock is not None:
            record.virtual_seconds = self._clock.time() - self._virtual
        record.clients = [self._clients[node_id] for node_id in sorted(self._clients)]
        record.bytes_down = sum(client.bytes_down for client in record.clients)
        record.bytes_up = sum(client.bytes_up for client in record.clients)
        trained = [client for client in record.clients if client.num_examples]
        if trained:
            record.parts["train"] = sum(c.train_seconds for c in trained) / len(trained)
            record.parts["encode"] = sum(c.encode_seconds for c in trained) / len(trained)
        record.server_peak_memory_bytes = peak_memory_bytes()
        if self._spans is not None:
            record.spans = self._spans.take()
        peaks = [client.peak_memory_bytes for client in record.clients]
        record.client_peak_memory_bytes = max(peaks, default=0)
        for observer in self._observers:
            observer.on_round(record)
        self._begin(record.server_round + 1)

    def _begin(self, server_round: int) -> None:
        self._record = RoundRecord(server_round)
        self._clients = {}
        self._wall = time.perf_counter()
        self._virtual = self._clock.time() if self._clock is not None else 0.0

    def _client(self, node_id: int) -> ClientRecord:
        return self._clients.setdefault(node_id, ClientRecord(node_id))

    def _note_costs(self, client: ClientRecord, reply: Message) -> None:
        meta: Mapping[str, Any] = reply.content.config_records.get(records.META, {})
        client.train_seconds = _number(meta, "train-seconds") or client.train_seconds
        client.encode_seconds = _number(meta, "encode-seconds") or client.encode_seconds
        peak = int(_number(meta, "peak-memory-bytes") or 0)
        client.peak_memory_bytes = max(client.peak_memory_bytes, peak)
        if self._spans is not None:
            client.spans = from_json(meta.get("spans")) or client.spans


def _number(values: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number that the other end reported, or None."""
    value = values.get(key)
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e300 else None
