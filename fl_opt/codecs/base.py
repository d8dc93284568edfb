"""A codec: selection, quantizer and coder put together, and the decoder of what it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_opt.codecs import code
from fl_opt.codecs.code import Coder, PositionMethod
from fl_opt.codecs.levels import LEVELS
from fl_opt.codecs.quantize import Quantizer
from fl_opt.codecs.select import Selection
from fl_opt.codecs.update import DenseUpdate, Layout, SparseUpdate, Update, Vector
from fl_opt.errors import CodecError, ConfigError, PayloadError
from fl_opt.wire import FrameKind, Reader, Writer, read_frame


@dataclass(frozen=True)
class Codec:
    """Turns a vector into a payload; stateless, and deterministic given a seed.

    Built from a spec by :func:`fl_opt.codecs.build_codec`.

    Raises
    ------
    ConfigError
        If the stages do not fit together.
    """

    spec: str
    selection: Selection
    quantizer: Quantizer
    coder: Coder

    def __post_init__(self) -> None:
        if self.quantizer.needs_selection and not self.selection.sparse:
            raise ConfigError(
                f"{self.quantizer.name!r} needs a selection before it, such as 'topk(0.01)'"
            )
        if not self.selection.sparse and self.coder.name == "rice":
            raise ConfigError(f"'rice' codes positions, and {self.selection.name!r} has none")

    def encode(self, vector: Vector, *, seed: int = 0, layout: Layout | None = None) -> bytes:
        """Encode an update.

        Parameters
        ----------
        vector : ndarray of float32, shape (size,)
            Finite. It is read only.
        seed : int
            Source of all randomness of this encode.
        layout : tuple of shapes, optional
            Shapes of the arrays that make up the vector, for stages that treat arrays apart.
            Default: one array of shape ``(size,)``.

        Returns
        -------
        bytes
            A complete, self-describing payload: one frame.

        Raises
        ------
        CodecError
            If the vector is not one-dimensional float32 or holds NaN or infinity.
        """
        if vector.ndim != 1 or vector.dtype != np.float32:
            raise CodecError(
                f"an update is a 1-D float32 vector, not {vector.ndim}-D {vector.dtype}"
            )
        vector = np.ascontiguousarray(vector)
        positions = self.selection.select(vector, seed, layout or (vector.shape,))
        writer = Writer()
        writer.varint(vector.size)
        if positions is None:
            writer.byte(PositionMethod.ALL)
            values = vector
        else:
            code.write_positions(writer, positions, vector.size, self.coder.position_methods)
            values = vector[positions]
        codes, levels = self.quantizer.quantize(values, seed)
        writer.byte(levels.wire_id)
        levels.write(writer)
        code.write_codes(writer, codes, levels.width, self.coder.code_methods)
        return writer.to_frame(FrameKind.UPDATE)

    def __str__(self) -> str:
        """Return the spec that the codec was built from."""
        return self.spec


def decode(payload: bytes | memoryview, *, size: int) -> Update:
    """Decode a payload made by any codec.

    Parameters
    ----------
    payload : bytes
        One frame.
    size : int
        Number of entries that the update must have; also the limit of what a malformed payload
        can make the decoder allocate.

    Returns
    -------
    Update
        Of exactly ``size`` entries, all finite. It may hold views of the payload.

    Raises
    ------
    PayloadError
        On anything that is not exactly right.
    """
    reader = read_frame(payload, FrameKind.UPDATE)
    update = read_update(reader, size)
    reader.finish()
    return update


def read_update(reader: Reader, size: int) -> Update:
    """Read the body of an update frame; see :func:`decode`."""
    claimed = reader.varint()
    if claimed != size:
        raise PayloadError(f"payload is of another model: {claimed} entries, expected {size}")
    method = reader.byte()
    if method == PositionMethod.ALL:
        return DenseUpdate(_read_values(reader, size))
    positions = code.read_positions(reader, method, size)
    return SparseUpdate(size, positions, _read_values(reader, positions.size))


def _read_values(reader: Reader, count: int) -> Vector:
    wire_id = reader.byte()
    if wire_id not in LEVELS:
        raise PayloadError(f"malformed payload: unknown quantization {wire_id}")
    levels = LEVELS[wire_id].read(reader, count)
    return levels.restore(code.read_codes(reader, count, levels.width))
