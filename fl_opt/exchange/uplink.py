"""Client to server: the update, coded.

The client's side keeps the residual of error feedback in ``context.state``. The server's
side checks that a reply belongs to the model and version it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import Codec, Update, build_codec
from fl_opt.errors import ExchangeError
from fl_opt.exchange import feedback, records
from fl_opt.exchange.blob import decode_blob, encode_blob
from fl_opt.exchange.downlink import Received
from fl_opt.params import NamedArrays, ParamSpec


@dataclass(frozen=True)
class UplinkUpdate:
    """A client's update as the server received it."""

    update: Update
    exact: dict[str, NDArray[Any]]


def encode_reply(
    received: Received, trained: NamedArrays, state: RecordDict, *, client_id: int
) -> bytes:
    """Encode what a client learned; its residual in ``state`` is replaced.

    Parameters
    ----------
    received : Received
        The model that training started from.
    trained : mapping of str to ndarray
        The model afterwards.
    state : RecordDict
        The client's ``context.state``. It is changed only if encoding succeeds.
    client_id : int
        Makes the randomness of different clients independent.

    Raises
    ------
    ModelError
        If ``trained`` has other names or shapes than the model received.
    CodecError
        If it holds NaN or infinity; the array is named.
    """
    spec, rules = received.spec, received.rules
    vector = spec.flatten(trained)
    vector -= received.reference
    if rules.error_feedback:
        feedback.add_residual(vector, feedback.load_residual(state, spec.size))
    blob = encode_blob(
        spec,
        _codec(rules.codec),
        vector,
        spec.exact_part(trained),
        seed=reply_seed(rules.seed, client_id, received.version),
    )
    if rules.error_feedback:
        sent, _ = decode_blob(blob, spec)
        feedback.store_residual(state, feedback.remaining(vector, sent))
    else:
        feedback.clear_residual(state)
    return blob


def reply_meta(received: Received) -> dict[str, records.MetaValue]:
    """Return what goes beside a reply's payload."""
    return {"version": received.version, "spec": received.spec.fingerprint}


def decode_reply(
    payload: bytes, meta: ConfigRecord, spec: ParamSpec, *, version: int
) -> UplinkUpdate:
    """Decode a reply on the server.

    Raises
    ------
    ExchangeError
        If the reply is of another model or version.
    PayloadError
        If the payload is not exactly right.
    """
    fingerprint = records.meta_value(meta, "spec", str)
    if fingerprint != spec.fingerprint:
        raise ExchangeError(f"reply of another model: {fingerprint:.16}, expected {spec.fingerprint}")
    base = records.meta_value(meta, "version", int)
    if base != version:
        raise ExchangeError(f"reply to model version {base}, expected {version}")
    return UplinkUpdate(*decode_blob(payload, spec))


def reply_seed(seed: int, client_id: int, version: int) -> int:
    """Return a seed of its own for each client and version, from the run's seed."""
    sequence = np.random.SeedSequence([seed, client_id, version])
    return int(sequence.generate_state(1, np.uint64)[0])


@lru_cache(maxsize=64)
def _codec(spec: str) -> Codec:
    return build_codec(spec)
