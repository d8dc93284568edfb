"""Server to client: the model that a round starts from.

Every message names a version of the model, describes its arrays and says how the client is
to answer. The same record goes to all clients of a round and is encoded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import Codec, build_codec
from fl_opt.errors import ConfigError, ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.blob import decode_blob, encode_blob
from fl_opt.params import NamedArrays, ParamSpec

_LOSSLESS_ENOUGH = ("fp32", "fp16", "bf16")


def build_downlink_codec(spec: str) -> Codec:
    """Build the codec of a whole model; it must keep every entry in at least 16 bits."""
    codec = build_codec(spec)
    if (
        not isinstance(codec, Codec)
        or codec.selection.sparse
        or codec.quantizer.name not in _LOSSLESS_ENOUGH
    ):
        raise ConfigError(
            f"downlink codec {spec!r} would damage the model; a whole model can be sent as "
            f"{', '.join(_LOSSLESS_ENOUGH)}"
        )
    return codec


@dataclass(frozen=True)
class ReplyRules:
    """How a client is to answer: specs of codec and feedback, and the run's seed.

    ``participants`` is the number of clients asked in the round; 0 if that is not known.
    """

    codec: str
    feedback: str
    seed: int
    participants: int = 0


@dataclass(frozen=True)
class Received:
    """A model as a client received it.

    ``reference`` (read-only, float32, shape ``(spec.size,)``) is what the client's update is a
    difference against.
    """

    spec: ParamSpec
    version: int
    reference: NDArray[np.float32]
    exact: dict[str, NDArray[Any]]
    rules: ReplyRules

    def arrays(self, start: NDArray[np.float32] | None = None) -> dict[str, NDArray[Any]]:
        """Return the named arrays of the model: copies, free to be changed.

        ``start``, of the reference's shape, stands in for it.
        """
        vector = self.reference if start is None else start
        exact = {name: array.copy() for name, array in self.exact.items()}
        return self.spec.unflatten(vector.copy(), exact)


def pack_broadcast(
    spec: ParamSpec,
    codec: Codec,
    vector: NDArray[np.float32],
    exact: NamedArrays,
    *,
    version: int,
    rules: ReplyRules,
) -> RecordDict:
    """Encode a model for the clients of a round."""
    blob = encode_blob(spec, codec, vector, exact, seed=version)
    meta: dict[str, records.MetaValue] = {
        "version": version,
        "spec": spec.to_bytes(),
        "codec": rules.codec,
        "feedback": rules.feedback,
        "seed": rules.seed,
        "participants": rules.participants,
    }
    return RecordDict(
        {records.ARRAYS: records.pack_payload(blob), records.META: records.pack_meta(meta)}
    )


def for_participants(broadcast: RecordDict, participants: int) -> RecordDict:
    """Return a packed broadcast that tells how many clients it asks; the payload is shared."""
    meta = ConfigRecord(dict(broadcast.config_records[records.META]))
    meta["participants"] = participants
    return RecordDict({**broadcast, records.META: meta})


def unpack_broadcast(payload: bytes, meta: Mapping[str, object]) -> Received:
    """Decode a broadcast on a client.

    Raises
    ------
    PayloadError, ExchangeError
        If anything in it is not exactly right.
    """
    spec = ParamSpec.from_bytes(records.meta_value(meta, "spec", bytes))
    update, exact = decode_blob(payload, spec)
    reference = update.to_dense()
    reference.flags.writeable = False
    version = records.meta_value(meta, "version", int)
    if version < 0:
        raise ExchangeError(f"model version {version} is negative")
    participants = records.meta_value(meta, "participants", int)
    if participants < 0:
        raise ExchangeError(f"participants = {participants} is negative")
    rules = ReplyRules(
        codec=records.meta_value(meta, "codec", str),
        feedback=records.meta_value(meta, "feedback", str),
        seed=records.meta_value(meta, "seed", int),
        participants=participants,
    )
    return Received(spec, version, reference, exact, rules)
