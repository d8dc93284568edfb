"""A model or update as one blob: a frame for the vector, one for the exact arrays if any."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_opt.codecs import Encoder, Update, read_update
from fl_opt.codecs.update import Layout
from fl_opt.errors import CodecError, PayloadError
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.exact import encode_exact, read_exact
from fl_opt.exchange.masks import read_covered
from fl_opt.params import NamedArrays, ParamSpec
from fl_opt.wire import FrameKind, Reader, split_frames


def encode_blob(
    spec: ParamSpec,
    codec: Encoder,
    vector: NDArray[np.float32],
    exact: NamedArrays,
    *,
    seed: int,
    covers: Coverage | None = None,
    layout: Layout | None = None,
) -> bytes:
    """Encode a vector and the exact arrays beside it.

    Parameters
    ----------
    spec : ParamSpec
    codec : Encoder
    vector : ndarray of float32
        Of ``spec.size`` entries; of ``covers.count`` where only these are sent.
    exact : mapping of str to ndarray
    seed : int
        Of the codec's randomness.
    covers : Coverage, optional
        What the receiver knows the vector to hold. Default: everything.
    layout : tuple of shapes, optional
        Of what the vector holds of each array. Default: as ``spec`` and ``covers`` have it.

    Raises
    ------
    CodecError
        If a value is NaN or infinite; the array is named.
    """
    if layout is None:
        layout = spec.layout if covers is None else covers.layout(spec)
    try:
        payload = codec.encode(vector, seed=seed, layout=layout, names=spec.names)
    except CodecError as error:
        if error.position is None:
            raise
        value = vector[error.position]
        place = error.position if covers is None else int(covers.positions[error.position])
        raise CodecError(
            f"array {spec.name_at(place)!r} holds {value}; only finite numbers can be sent",
            position=place,
        ) from None
    return payload + encode_exact(spec, exact) if spec.exact_arrays else payload


def decode_blob(
    blob: bytes, spec: ParamSpec, covers: Coverage | None = None
) -> tuple[Update, dict[str, NDArray[Any]]]:
    """Decode what :func:`encode_blob` made; ``covers`` says what its vector held.

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
    update = read_covered(frames[0][1], spec, covers)
    exact = read_exact(frames[1][1], spec) if spec.exact_arrays else {}
    for _, reader in frames:
        reader.finish()
    return update, exact


def decode_covered(blob: bytes, covers: Coverage) -> Update:
    """Decode the vector of a blob as it was encoded: ``covers.count`` entries, no others."""
    _, body = next(split_frames(blob))
    return read_update(Reader(body), covers.count)
