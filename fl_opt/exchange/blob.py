"""A model or update as one blob: a frame for the vector, one for the exact arrays if any."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs import Encoder, Update, read_update
from fl_opt.errors import CodecError, PayloadError
from fl_opt.exchange.exact import encode_exact, read_exact
from fl_opt.params import NamedArrays, ParamSpec
from fl_opt.wire import FrameKind, Reader, split_frames


def encode_blob(
    spec: ParamSpec,
    codec: Encoder,
    vector: NDArray[np.float32],
    exact: NamedArrays,
    *,
    seed: int,
) -> bytes:
    """Encode a vector and the exact arrays beside it.

    Raises
    ------
    CodecError
        If a value is NaN or infinite; the array is named.
    """
    try:
        payload = codec.encode(vector, seed=seed, layout=spec.layout, names=spec.names)
    except CodecError as error:
        if error.position is None:
            raise
        name = spec.name_at(error.position)
        value = vector[error.position]
        raise CodecError(
            f"array {name!r} holds {value}; only finite numbers can be sent",
            position=error.position,
        ) from None
    return payload + encode_exact(spec, exact) if spec.exact_arrays else payload


def decode_blob(blob: bytes, spec: ParamSpec) -> tuple[Update, dict[str, NDArray[Any]]]:
    """Decode what :func:`encode_blob` made.

    Returns
    -------
    update : Update
        Of ``spec.size`` entries.
    exact : dict of str to ndarray
        One array for each exact one of the spec.

    Raises
    ------
    PayloadError
        On anything that is not exactly right.
    """
    frames = [(kind, Reader(body)) for kind, body in split_frames(blob)]
    expected = [FrameKind.UPDATE] + [FrameKind.EXACT] * bool(spec.exact_arrays)
    if [kind for kind, _ in frames] != expected:
        found = ", ".join(kind.name.lower() for kind, _ in frames)
        raise PayloadError(f"payload holds {found}; the model needs {len(expected)} frame(s)")
    update = read_update(frames[0][1], spec.size)
    exact = read_exact(frames[1][1], spec) if spec.exact_arrays else {}
    for _, reader in frames:
        reader.finish()
    return update, exact
