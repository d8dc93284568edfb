"""Client to server: the update, coded.

The client's side keeps the state of its feedback in ``context.state``. The server's side
checks that a reply belongs to the model and version it was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flwr.app import RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import Encoder, Update, build_codec
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.blob import decode_blob, encode_blob
from fl_opt.exchange.downlink import Received
from fl_opt.exchange.feedback import Feedback, build_feedback
from fl_opt.exchange.feedback.store import load_state, store_state
from fl_opt.params import NamedArrays, ParamSpec
from fl_opt.seeds import derive_seed


@dataclass(frozen=True)
class UplinkUpdate:
    """A client's update as the server received it."""

    update: Update
    exact: dict[str, NDArray[Any]]


def start_arrays(received: Received, state: RecordDict) -> dict[str, NDArray[Any]]:
    """Return the named arrays that training starts from: copies, free to be changed.

    They are those of the model received, unless the round's feedback starts elsewhere.
    """
    feedback = _feedback(received.rules.feedback)
    kept = load_state(state, feedback, received.spec)
    return received.arrays(feedback.start(received.reference, kept))


def encode_reply(
    received: Received, trained: NamedArrays, state: RecordDict, *, client_id: int
) -> bytes:
    """Encode what a client learned; the state of its feedback is replaced.

    Parameters
    ----------
    received : Received
        The model received in this round.
    trained : mapping of str to ndarray
        What training made of :func:`start_arrays`.
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
    feedback = _feedback(rules.feedback)
    kept = load_state(state, feedback, spec)
    delta = spec.flatten(trained)
    delta -= feedback.start(received.reference, kept)
    vector, moved = feedback.before(delta, kept, participants=rules.participants)
    blob = encode_blob(
        spec,
        _codec(rules.codec),
        vector,
        spec.exact_part(trained),
        seed=derive_seed(rules.seed, "uplink", client_id, received.version),
    )
    if feedback.arrays:
        sent, _ = decode_blob(blob, spec)
        moved = feedback.after(vector, sent, moved)
    store_state(state, moved, spec)
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
def _codec(spec: str) -> Encoder:
    return build_codec(spec)


@lru_cache(maxsize=64)
def _feedback(spec: str) -> Feedback:
    return build_feedback(spec)
