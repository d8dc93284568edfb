"""The record of one round: what strategies fill in and reports read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol

from fl_opt.spans import SpanTotal

SERVER_PARTS: Final = (
    "broadcast",
    "send",
    "wait",
    "decode-aggregate",
    "evaluate",
    "checkpoint",
)
"""What the server measures of a round, in their order."""


@dataclass
class ClientRecord:
    """What one client did in one round.

    ``train_seconds`` and ``encode_seconds`` are measured by the client; bytes are lengths of
    what was sent. ``error`` says why a reply was not used. ``seconds`` is the time from the
    server's message to the reply that was used last, on the virtual clock where there is one.
    ``staleness`` has an entry for each update used: the versions that it missed.

    ``arrived`` is when its last training reply was read, in seconds since the round began, on
    the clock of ``seconds``. On the virtual clock ``download_seconds``, ``compute_seconds``
    and ``upload_seconds`` are what that time consists of; None on real networks.

    Where codecs are chosen for each client, ``codec_up`` and ``codec_down`` name them (empty:
    that of the run), and ``mbps_down`` and ``mbps_up`` are what its link is thought to carry.

    ``spans`` are what its work for the last reply consisted of, where that is measured.
    """

    node_id: int
    bytes_down: int = 0
    bytes_up: int = 0
    num_examples: int = 0
    seconds: float = 0.0
    staleness: list[int] = field(default_factory=list)
    train_seconds: float = 0.0
    encode_seconds: float = 0.0
    peak_memory_bytes: int = 0
    error: str | None = None
    codec_up: str = ""
    codec_down: str = ""
    mbps_down: float | None = None
    mbps_up: float | None = None
    arrived: float | None = None
    download_seconds: float | None = None
    compute_seconds: float | None = None
    upload_seconds: float | None = None
    spans: list[SpanTotal] = field(default_factory=list)


@dataclass
class RoundRecord:
    """One round of a run.

    Attributes
    ----------
    server_round : int
        From 1; 0 is the evaluation of the initial model.
    wall_seconds : float
        Real time from the first message to the end of the evaluation.
    virtual_seconds : float or None
        The same span on the virtual clock; None on real networks.
    parts : dict of str to float
        Where the time went, in seconds. Measured by the server: ``broadcast`` (choosing
        clients, encoding), ``send`` (on the virtual engine clients run meanwhile), ``wait``
        (for replies), ``decode-aggregate``, ``evaluate``, ``checkpoint``.
        Reported by clients, as means: ``train``, ``encode``. On the virtual clock, of the reply
        that came last: ``download``, ``compute``, ``upload``.
    bytes_down, bytes_up : int
        Payload bytes sent to and received from clients: training and evaluation.
    bytes_down_by_kind : dict of str to int
        ``bytes_down``, by what messages carried; see :class:`~fl_opt.exchange.downlink.Kind`.
    message_bytes_down, message_bytes_up : int
        The same with everything Flower adds to a payload: whole serialized messages.
    dense_bytes_down, dense_bytes_up : int
        What plain float32 would have taken: the whole model for each client that was asked,
        and for each training reply that was used.
    train_loss : float or None
        Mean training loss over clients, weighted by their number of examples.
    loss, accuracy : float or None
        Central evaluation, where there was one in this round.
    federated_loss, federated_accuracy : float or None
        Means over clients, weighted by their number of examples.
    participants, failures : int
        Replies used, and replies refused, failed or never received.
    stale, ignored : int
        Of those used, the ones that came after their round; and replies that did not count
        because they were duplicates or had been given up.
    served_again, returned, lost : int
        Clients that could not build on what they were sent; that took an update back which had
        not been accepted; that had lost their state since an update was accepted.
    server_peak_memory_bytes, client_peak_memory_bytes : int
        High-water marks of resident memory so far: of the server's process, and the largest
        of the clients' processes (the same process on the virtual engine).
    spans : list of SpanTotal
        What the server's parts consisted of, where that is measured.
    """

    server_round: int
    wall_seconds: float = 0.0
    virtual_seconds: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    bytes_down_by_kind: dict[str, int] = field(default_factory=dict)
    message_bytes_down: int = 0
    message_bytes_up: int = 0
    dense_bytes_down: int = 0
    dense_bytes_up: int = 0
    train_loss: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    federated_loss: float | None = None
    federated_accuracy: float | None = None
    participants: int = 0
    failures: int = 0
    stale: int = 0
    ignored: int = 0
    served_again: int = 0
    returned: int = 0
    lost: int = 0
    server_peak_memory_bytes: int = 0
    client_peak_memory_bytes: int = 0
    spans: list[SpanTotal] = field(default_factory=list)
    clients: list[ClientRecord] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values under kebab-case keys, ready for JSON."""
        row: dict[str, Any] = _plain(self)
        return row


class RoundObserver(Protocol):
    """Something told about a run as it goes: a recorder, a progress bar, a writer.

    A strategy calls ``on_start`` once, ``on_reply`` for each reply to a training message,
    ``on_round`` when a round (or the evaluation of the initial model, round 0) is complete
    and ``on_end`` once, also when the run fails.
    """

    def on_start(self, num_rounds: int) -> None:
        """The run begins."""

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        """One more reply to this round's training messages has come."""

    def on_round(self, record: RoundRecord) -> None:
        """A round is complete."""

    def on_end(self) -> None:
        """The run is over."""


def _plain(value: Any) -> Any:
    """Return dataclasses as dictionaries under kebab-case keys, in one pass."""
    if isinstance(value, (RoundRecord, ClientRecord, SpanTotal)):
        return {key: _plain(getattr(value, name)) for name, key in _KEYS[type(value)]}
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


_KEYS: Final = {
    kind: [(field.name, field.name.replace("_", "-")) for field in fields(kind)]
    for kind in (RoundRecord, ClientRecord, SpanTotal)
}
