"""Compression around any ``NumPyClient``, and the app that speaks it over messages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fl_opt.client.session import received_arrays, train_round
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.params import NamedArrays
from fl_opt.profiling.memory import peak_memory_bytes

Scalar = bool | bytes | float | int | str
ClientFn = Callable[[Context], NumPyClient | Client]

_PREFIX = f"{records.META}."
_logger = logging.getLogger(__name__)


class CompressedNumPyClient(NumPyClient):
    """Wraps a ``NumPyClient``: coded model in, coded update out.

    The wrapped client is used as it is: it receives and returns plain arrays. The
    parameters of :meth:`fit` and :meth:`evaluate` are one uint8 array, the payload; what
    goes beside it stands in ``config`` and ``metrics`` under keys that begin with ``fl-opt.``.

    Parameters
    ----------
    client : NumPyClient
        The client to wrap; what ``NumPyClient.to_client()`` returns is taken as well.
    context : Context
        The client's context; what feedback remembers is kept in its state.
    """

    def __init__(self, client: NumPyClient | Client, context: Context) -> None:
        inner = getattr(client, "numpy_client", client)
        if not isinstance(inner, NumPyClient):
            raise TypeError(f"{type(client).__name__} is not a flwr.client.NumPyClient")
        self._client = inner
        self._context = context

    def get_properties(self, config: dict[str, Scalar]) -> dict[str, Scalar]:
        """Ask the wrapped client."""
        return self._client.get_properties(config)

    def get_parameters(self, config: dict[str, Scalar]) -> list[NDArray[Any]]:
        """Ask the wrapped client: plain arrays."""
        return self._client.get_parameters(config)

    def fit(
        self, parameters: list[NDArray[Any]], config: dict[str, Scalar]
    ) -> tuple[list[NDArray[Any]], int, dict[str, Scalar]]:
        """Train on the coded model and return the coded update."""
        plain, meta = _split(config)
        outcome: list[tuple[int, dict[str, Scalar]]] = []

        def train(arrays: dict[str, NDArray[Any]]) -> NamedArrays:
            trained, num_examples, metrics = self._client.fit(list(arrays.values()), plain)
            if len(trained) != len(arrays):
                raise ExchangeError(
                    f"client returned {len(trained)} arrays, the model has {len(arrays)}"
                )
            outcome.append((num_examples, metrics))
            return {name: np.asarray(a) for name, a in zip(arrays, trained, strict=True)}

        reply, reply_meta = train_round(_payload(parameters), meta, self._context, train)
        num_examples, metrics = outcome[0]
        beside = {_PREFIX + key: value for key, value in reply_meta.items()}
        return [np.frombuffer(reply, np.uint8)], num_examples, {**metrics, **beside}

    def evaluate(
        self, parameters: list[NDArray[Any]], config: dict[str, Scalar]
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Evaluate the coded model."""
        plain, meta = _split(config)
        arrays = received_arrays(_payload(parameters), meta)
        return self._client.evaluate(list(arrays.values()), plain)


def numpy_client_app(client_fn: ClientFn) -> ClientApp:
    """Return a ClientApp that runs a NumPyClient, compressed, under a Message-based strategy.

    Parameters
    ----------
    client_fn : callable
        Takes the Context and returns the NumPyClient, as for ``ClientApp(client_fn=...)``.

    Examples
    --------
    ::

        app = numpy_client_app(client_fn)      # was: app = ClientApp(client_fn=client_fn)
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = CompressedNumPyClient(client_fn(context), context)
        parameters, num_examples, metrics = client.fit(*_instructions(message))
        plain, meta = _split(metrics)
        metric_record = _metric_record(plain)
        metric_record["num-examples"] = num_examples
        content = RecordDict(
            {
                records.ARRAYS: records.pack_payload(parameters[0].tobytes()),
                records.METRICS: metric_record,
                records.META: meta,
            }
        )
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client = CompressedNumPyClient(client_fn(context), context)
        loss, num_examples, metrics = client.evaluate(*_instructions(message))
        metric_record = _metric_record(metrics)
        metric_record["loss"] = float(loss)
        metric_record["num-examples"] = num_examples
        meta = records.pack_meta({"peak-memory-bytes": float(peak_memory_bytes())})
        content = RecordDict({records.METRICS: metric_record, records.META: meta})
        return Message(content, reply_to=message)

    return app


def _instructions(message: Message) -> tuple[list[NDArray[Any]], dict[str, Scalar]]:
    """Turn a message into what ``fit`` and ``evaluate`` take."""
    payload = np.frombuffer(records.find_payload(message.content), np.uint8)
    config: dict[str, Any] = dict(message.content.config_records.get(records.CONFIG, {}))
    meta = records.find_meta(message.content)
    return [payload], config | {_PREFIX + key: value for key, value in meta.items()}


def _payload(parameters: list[NDArray[Any]]) -> bytes:
    if len(parameters) != 1 or parameters[0].dtype != np.uint8:
        raise ExchangeError(
            "the server sent plain parameters; use a strategy such as CompressedFedAvg"
        )
    return parameters[0].tobytes()


def _split(mixed: dict[str, Scalar]) -> tuple[dict[str, Scalar], ConfigRecord]:
    """Separate the app's own entries from those of the exchange."""
    plain = {key: value for key, value in mixed.items() if not key.startswith(_PREFIX)}
    meta = {key.removeprefix(_PREFIX): mixed[key] for key in mixed if key not in plain}
    return plain, records.pack_meta(meta)


def _metric_record(metrics: dict[str, Scalar]) -> MetricRecord:
    record = MetricRecord()
    for key, value in metrics.items():
        number: object = value.item() if isinstance(value, np.generic) else value
        if isinstance(number, (bool, int)):
            record[key] = int(number)
        elif isinstance(number, float):
            record[key] = number
        else:
            _logger.warning("metric %r is not a number and is not sent: %.80r", key, value)
    return record
