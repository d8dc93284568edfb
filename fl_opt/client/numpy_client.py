"""Compression around any ``NumPyClient``, and the app that speaks it over messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fl_opt.client.last_metrics import keep_metrics, kept_metrics
from fl_opt.client.session import Outcome, evaluate_round, train_round
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.params import NamedArrays, name_arrays

Scalar = bool | bytes | float | int | str
ClientFn = Callable[[Context], NumPyClient | Client]
InitialFn = Callable[[Context], Sequence[NDArray[Any]]]

_PREFIX = f"{records.META}."
_EVALUATION = f"{records.EVALUATION}."
_NUM_EXAMPLES = "num-examples"
_logger = logging.getLogger(__name__)


class CompressedNumPyClient(NumPyClient):
    """Wraps a ``NumPyClient``: coded model in, coded update out.

    The wrapped client is used as it is: it receives and returns plain arrays. The
    parameters of :meth:`fit` and :meth:`evaluate` are one uint8 array, the payload, or none
    where there is nothing to send; what goes beside it stands in ``config`` and ``metrics``
    under keys that begin with ``fl-opt.``.

    Parameters
    ----------
    client : NumPyClient
        The client to wrap; what ``NumPyClient.to_client()`` returns is taken as well.
    context : Context
        The client's context; what must outlive a round is kept in its state.
    initial : callable, optional
        Takes the context and returns the arrays of the model that the server begins with, in
        the order of :meth:`get_parameters`. With it the first message carries no model.
    """

    def __init__(
        self,
        client: NumPyClient | Client,
        context: Context,
        initial: InitialFn | None = None,
    ) -> None:
        inner = getattr(client, "numpy_client", client)
        if not isinstance(inner, NumPyClient):
            raise TypeError(f"{type(client).__name__} is not a flwr.client.NumPyClient")
        self._client = inner
        self._context = context
        self._initial = None if initial is None else lambda: name_arrays(initial(context))

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
        trained_on = 0
        metrics: dict[str, Scalar] = {}

        def train(arrays: dict[str, NDArray[Any]]) -> NamedArrays:
            nonlocal trained_on, metrics
            trained, trained_on, metrics = self._client.fit(list(arrays.values()), plain)
            if len(trained) != len(arrays):
                raise ExchangeError(
                    f"client returned {len(trained)} arrays, the model has {len(arrays)}"
                )
            return {name: np.asarray(a) for name, a in zip(arrays, trained, strict=True)}

        def evaluate(arrays: dict[str, NDArray[Any]]) -> Mapping[str, float]:
            loss, num_examples, found = self._client.evaluate(list(arrays.values()), plain)
            return _numbers({**found, "loss": loss, _NUM_EXAMPLES: num_examples})

        outcome = train_round(
            _payload(parameters),
            meta,
            self._context,
            train,
            initial=self._initial,
            evaluate=evaluate,
        )
        if outcome.done:
            sent = MetricRecord({**_split_numbers(metrics)[0], _NUM_EXAMPLES: trained_on})
            keep_metrics(self._context.state, {records.METRICS: sent})
        elif outcome.payload:
            trained_on, metrics = self._last_metrics()
        evaluation = {_EVALUATION + key: v for key, v in (outcome.evaluation or {}).items()}
        return (
            _as_parameters(outcome),
            trained_on,
            {**metrics, **evaluation, **_beside(outcome)},
        )

    def _last_metrics(self) -> tuple[int, dict[str, Scalar]]:
        """Return number of examples and metrics of the update that is sent once more."""
        metrics: dict[str, Any] = {}
        for record in kept_metrics(self._context.state).values():
            metrics |= record
        return metrics.pop(_NUM_EXAMPLES, 0), metrics

    def evaluate(
        self, parameters: list[NDArray[Any]], config: dict[str, Scalar]
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Evaluate the coded model."""
        plain, meta = _split(config)
        result: tuple[float, int, dict[str, Scalar]] = (0.0, 0, {})

        def evaluate(arrays: dict[str, NDArray[Any]]) -> None:
            nonlocal result
            result = self._client.evaluate(list(arrays.values()), plain)

        outcome = evaluate_round(
            _payload(parameters), meta, self._context, evaluate, initial=self._initial
        )
        loss, num_examples, metrics = result
        return loss, num_examples, {**metrics, **_beside(outcome)}


def numpy_client_app(client_fn: ClientFn, initial: InitialFn | None = None) -> ClientApp:
    """Return a ClientApp that runs a NumPyClient, compressed, under a Message-based strategy.

    Parameters
    ----------
    client_fn : callable
        Takes the Context and returns the NumPyClient, as for ``ClientApp(client_fn=...)``.
    initial : callable, optional
        See :class:`CompressedNumPyClient`.

    Examples
    --------
    ::

        app = numpy_client_app(client_fn)      # was: app = ClientApp(client_fn=client_fn)
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = CompressedNumPyClient(client_fn(context), context, initial)
        parameters, num_examples, metrics = client.fit(*_instructions(message))
        evaluation, metrics = _take(metrics, _EVALUATION)
        plain, meta = _split(metrics)
        content = RecordDict({records.META: meta})
        if parameters:
            content[records.ARRAYS] = records.pack_payload(parameters[0].tobytes())
        metric_record = _metric_record(plain)
        metric_record[_NUM_EXAMPLES] = num_examples
        content[records.METRICS] = metric_record
        if evaluation:
            content[records.EVALUATION] = _metric_record(evaluation)
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client = CompressedNumPyClient(client_fn(context), context, initial)
        loss, num_examples, metrics = client.evaluate(*_instructions(message))
        plain, meta = _split(metrics)
        metric_record = _metric_record(plain)
        metric_record["loss"] = float(loss)
        metric_record[_NUM_EXAMPLES] = num_examples
        content = RecordDict({records.METRICS: metric_record, records.META: meta})
        return Message(content, reply_to=message)

    return app


def _instructions(message: Message) -> tuple[list[NDArray[Any]], dict[str, Scalar]]:
    """Turn a message into what ``fit`` and ``evaluate`` take."""
    payload = records.find_payload(message.content, optional=True)
    config: dict[str, Any] = dict(message.content.config_records.get(records.CONFIG, {}))
    meta = records.find_meta(message.content)
    parameters = [np.frombuffer(payload, np.uint8)] if payload else []
    return parameters, config | {_PREFIX + key: value for key, value in meta.items()}


def _payload(parameters: list[NDArray[Any]]) -> bytes:
    if not parameters:
        return b""
    if len(parameters) != 1 or parameters[0].dtype != np.uint8:
        raise ExchangeError(
            "the server sent plain parameters; use a strategy such as CompressedFedAvg"
        )
    return parameters[0].tobytes()


def _as_parameters(outcome: Outcome) -> list[NDArray[Any]]:
    return [np.frombuffer(outcome.payload, np.uint8)] if outcome.payload else []


def _beside(outcome: Outcome) -> dict[str, Scalar]:
    return {_PREFIX + key: value for key, value in outcome.meta.items()}


def _split(mixed: dict[str, Scalar]) -> tuple[dict[str, Scalar], ConfigRecord]:
    """Separate the app's own entries from those of the exchange."""
    meta, plain = _take(mixed, _PREFIX)
    return plain, records.pack_meta(meta)


def _take(mixed: dict[str, Scalar], prefix: str) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Return the entries under a prefix, without it, and the others."""
    found = {
        key.removeprefix(prefix): value
        for key, value in mixed.items()
        if key.startswith(prefix)
    }
    return found, {key: value for key, value in mixed.items() if not key.startswith(prefix)}


def _metric_record(metrics: dict[str, Scalar]) -> MetricRecord:
    return MetricRecord({**_numbers(metrics)})


def _numbers(metrics: Mapping[str, Scalar]) -> dict[str, int | float]:
    """Return the metrics that are numbers; others cannot be sent."""
    numbers, others = _split_numbers(metrics)
    for key, value in others.items():
        _logger.warning("metric %r is not a number and is not sent: %.80r", key, value)
    return numbers


def _split_numbers(
    metrics: Mapping[str, Scalar],
) -> tuple[dict[str, int | float], dict[str, Scalar]]:
    """Return the metrics that are numbers, as Python has them, and the others."""
    numbers: dict[str, int | float] = {}
    others: dict[str, Scalar] = {}
    for key, value in metrics.items():
        number: object = value.item() if isinstance(value, np.generic) else value
        if isinstance(number, (bool, int)):
            numbers[key] = int(number)
        elif isinstance(number, float):
            numbers[key] = number
        else:
            others[key] = value
    return numbers, others
