"""Client to server: the update, coded.

The client's side keeps the residual of error feedback in ``context.state``. The server's
side checks that a reply belongs to the model and version it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flwr.app import RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import Codec, Update, build_codec
from fl_opt.errors import ExchangeError
from fl_opt.exchange import feedback, records
from fl_opt.exchange.blob import decode_blob, encode_blob
from fl_opt.exchange.downlink import Received
from fl_opt.params import NamedArrays, ParamSpec
from fl_opt.seeds import derive_seed


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
        seed=derive_seed(rules.seed, "uplink", client_id, received.version),
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


def decode_reply(content: RecordDict, spec: ParamSpec, *, version: int) -> UplinkUpdate:
    """Decode a reply on the server.

    Parameters
    ----------
    content : RecordDict
        Of the reply.
    spec : ParamSpec
        The model's.
    version : int
        The version of the model that the reply must be a difference against.

    Raises
    ------
    ExchangeError
        If the reply is of another model or version.
    PayloadError
        If the payload is not exactly right.
    """
    meta = records.find_meta(content)
    fingerprint = records.meta_value(meta, "spec", str)
    if fingerprint != spec.fingerprint:
        raise ExchangeError(
            f"reply of another model: {fingerprint:.16}, expected {spec.fingerprint}"
        )
    base = records.meta_value(meta, "version", int)
    if base != version:
        raise ExchangeError(f"reply to model version {base}, expected {version}")
    return UplinkUpdate(*decode_blob(records.find_payload(content), spec))


@lru_cache(maxsize=64)
def _codec(spec: str) -> Codec:
    return build_codec(spec)
