"""What a codec makes of a vector: bytes, distortion, and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs import Encoder, Update, build_codec, decode
from fl_opt.codecs.update import Layout
from fl_opt.errors import CodecError
from fl_opt.profiling.timing import side_by_side


@dataclass(frozen=True)
class Fidelity:
    """A payload and what it keeps.

    Attributes
    ----------
    update : Update
        As it was decoded.
    num_bytes : int
        Of the payload, everything included.
    bits_per_parameter : float
    nmse : float
        Squared error over the squared norm of the vector: 0 exact, 1 as bad as sending nothing.
    cosine : float
        Of the angle between vector and decoded vector; 0 where one of them is zero.
    """

    update: Update
    num_bytes: int
    bits_per_parameter: float
    nmse: float
    cosine: float


@dataclass(frozen=True)
class CodecCosts:
    """One codec on one vector.

    Attributes
    ----------
    codec : str
        Its whole spec.
    num_bytes : int
        Of the payload.
    ratio : float
        Bytes of float32 over those.
    nmse, cosine : float
        As in :class:`Fidelity`.
    encode_ms, decode_ms : float
        Medians; decoding adds the update to a sum, as a server does.
    """

    codec: str
    num_bytes: int
    ratio: float
    nmse: float
    cosine: float
    encode_ms: float
    decode_ms: float


def fidelity(
    codec: Encoder, vector: NDArray[np.float32], *, seed: int = 0, layout: Layout | None = None
) -> Fidelity:
    """Encode and decode a vector, and compare.

    Parameters
    ----------
    codec : Encoder
    vector : ndarray of float32, shape (d,)
        At least one entry.
    seed : int
        Of what the codec draws.
    layout : Layout, optional
        Shapes of the arrays in the vector.

    Raises
    ------
    CodecError
        If the vector holds NaN or infinity.
    """
    payload = codec.encode(vector, seed=seed, layout=layout)
    update = decode(payload, size=vector.size)
    decoded, original = update.to_dense().astype(np.float64), vector.astype(np.float64)
    energy = float(original @ original)
    error = decoded - original
    norm = math.sqrt(energy * float(decoded @ decoded))
    return Fidelity(
        update,
        len(payload),
        8 * len(payload) / vector.size,
        float(error @ error) / energy if energy else 0.0,
        float(decoded @ original) / norm if norm else 0.0,
    )


def codec_costs(
    specs: Sequence[str], vector: NDArray[np.float32], *, repeats: int = 5
) -> list[CodecCosts]:
    """Measure codecs on a vector, in turns, so that ratios of times hold on a busy machine.

    Parameters
    ----------
    specs : sequence of str
        Codec specs.
    vector : ndarray of float32, shape (d,)
    repeats : int
        Counted turns.

    Raises
    ------
    CodecError
        If the vector is empty or holds NaN or infinity, or a spec is wrong.
    """
    if not vector.size:
        raise CodecError("an empty vector has no costs to measure")
    codecs = {spec: build_codec(spec) for spec in dict.fromkeys(specs)}
    kept = {spec: fidelity(codec, vector) for spec, codec in codecs.items()}
    payloads = {spec: codec.encode(vector) for spec, codec in codecs.items()}
    total = np.zeros_like(vector)
    calls = {("encode", s): lambda c=codec: c.encode(vector) for s, codec in codecs.items()}
    calls |= {
        ("decode", s): lambda p=payload: decode(p, size=vector.size).add_to(total, 0.5)
        for s, payload in payloads.items()
    }
    seconds = side_by_side(calls, repeats)
    return [
        CodecCosts(
            str(codecs[spec]),
            found.num_bytes,
            4 * vector.size / found.num_bytes,
            found.nmse,
            found.cosine,
            1e3 * seconds["encode", spec],
            1e3 * seconds["decode", spec],
        )
        for spec, found in kept.items()
    ]
