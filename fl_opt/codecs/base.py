"""A codec: selection, quantizer and coder put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fl_opt.codecs import code
from fl_opt.codecs.code import CodeMethod, Coder, PositionMethod
from fl_opt.codecs.draw import Draw
from fl_opt.codecs.ecsq import Ecsq
from fl_opt.codecs.quantize import Quantizer
from fl_opt.codecs.select import Selection
from fl_opt.codecs.update import Layout, Vector
from fl_opt.errors import CodecError, ConfigError
from fl_opt.wire import FrameKind, Writer


class Encoder(ABC):
    """Anything that :func:`fl_opt.codecs.build_codec` makes of a spec.

    Attributes
    ----------
    spec : str
        As it was given.
    """

    spec: str

    @abstractmethod
    def encode(
        self,
        vector: Vector,
        *,
        seed: int = 0,
        layout: Layout | None = None,
        names: Sequence[str] | None = None,
    ) -> bytes:
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
        names : sequence of str, optional
            Their names, for rules; without them patterns meet nothing but ``*``.

        Returns
        -------
        bytes
            A complete, self-describing payload: one frame.

        Raises
        ------
        CodecError
            If the vector is not one-dimensional float32 or holds NaN or infinity.
        """

    def __str__(self) -> str:
        """Return the spec that the codec was built from."""
        return self.spec


class BodyEncoder(Encoder):
    """An encoder that writes the body of an update, to be framed or put into another one."""

    def encode(
        self,
        vector: Vector,
        *,
        seed: int = 0,
        layout: Layout | None = None,
        names: Sequence[str] | None = None,
    ) -> bytes:
        """Frame the body; see :meth:`Encoder.encode`."""
        writer = Writer()
        vector = check_vector(vector)
        self.write(writer, vector, seed=seed, layout=layout or (vector.shape,), names=names)
        return writer.to_frame(FrameKind.UPDATE)

    @abstractmethod
    def write(
        self,
        writer: Writer,
        vector: Vector,
        *,
        seed: int,
        layout: Layout,
        names: Sequence[str] | None = None,
    ) -> None:
        """Append the body of an update."""


@dataclass(frozen=True)
class Codec(BodyEncoder):
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
        if self._entropy_coded and self.coder.name not in ("auto", "entropy"):
            raise ConfigError(f"'ecsq' is entropy-coded, which {self.coder.name!r} is not")

    def write(
        self,
        writer: Writer,
        vector: Vector,
        *,
        seed: int,
        layout: Layout,
        names: Sequence[str] | None = None,
    ) -> None:
        """Append size, positions, levels and codes."""
        chosen = self.selection.select(vector, seed, layout)
        writer.varint(vector.size)
        if chosen is None:
            writer.byte(PositionMethod.ALL)
            values = vector
        elif isinstance(chosen, Draw):
            writer.byte(PositionMethod.SEED)
            chosen.write(writer)
            values = chosen.take(vector)
        else:
            code.write_positions(writer, chosen, vector.size, self.coder.position_methods)
            values = vector[chosen]
        codes, levels = self.quantizer.quantize(values, seed)
        writer.byte(levels.wire_id)
        levels.write(writer)
        methods = (CodeMethod.ENTROPY,) if self._entropy_coded else self.coder.code_methods
        code.write_codes(writer, codes, levels.width, methods)

    @property
    def _entropy_coded(self) -> bool:
        """Whether the bytes that the quantizer counts on are those of the entropy code."""
        return isinstance(self.quantizer, Ecsq)


def check_vector(vector: Vector) -> Vector:
    """Return the vector, contiguous; CodecError unless it is one-dimensional float32."""
    if vector.ndim != 1 or vector.dtype != np.float32:
        raise CodecError(
            f"an update is a 1-D float32 vector, not {vector.ndim}-D {vector.dtype}"
        )
    return np.ascontiguousarray(vector)
