"""How a shared reference takes its steps."""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np

from fl_opt.codecs import Codec, build_codec
from fl_opt.codecs.ecsq import ROUNDING, Ecsq
from fl_opt.codecs.update import Layout, Vector
from fl_opt.errors import ConfigError
from fl_opt.exchange.lattice import encode_exactly
from fl_opt.params import ParamSpec
from fl_opt.seeds import derive_seed

_SMALLEST: Final = 2.0**-40


class Mover(Protocol):
    """Encodes the steps of a reference."""

    def encode(
        self, spec: ParamSpec, difference: Vector, version: int, layout: Layout | None = None
    ) -> bytes:
        """Return one frame: the update that takes the reference nearer to the model.

        Parameters
        ----------
        spec : ParamSpec
        difference : ndarray of float32
            From reference to model; it may be overwritten.
        version : int
            Of the reference.
        layout : tuple of shapes, optional
            Of what the difference holds of each array. Default: all.
        """


class CodecMover:
    """Encodes each step with a codec.

    Parameters
    ----------
    codec : str
        Spec.
    seed : int
        Of the run.
    """

    def __init__(self, codec: str, *, seed: int) -> None:
        self._codec = build_codec(codec)
        self._seed = seed

    def encode(
        self, spec: ParamSpec, difference: Vector, version: int, layout: Layout | None = None
    ) -> bytes:
        """Encode the difference."""
        place = derive_seed(self._seed, "downlink", version)
        layout = spec.layout if layout is None else layout
        return self._codec.encode(difference, seed=place, layout=layout, names=spec.names)


class LatticeMover:
    """Moves by whole multiples of one step size: missed steps then add up to few bytes.

    Entries are cut off to multiples with the dead zone of the ``ecsq`` codec. As all steps are
    multiples of the same number, so is their sum, and it costs no more bytes than
    one large step would.

    Parameters
    ----------
    size : float
        Step size in units of the weights; a power of two, or the nearest one is taken.

    Raises
    ------
    ConfigError
        If it is so small or large that float32 has no room for multiples.
    """

    def __init__(self, size: float) -> None:
        if not _SMALLEST <= size <= 1.0 / _SMALLEST:
            raise ConfigError(
                f"step = {size} of the shared downlink is not between {_SMALLEST} and "
                f"{1.0 / _SMALLEST:.0f}"
            )
        self._size = float(2.0 ** round(math.log2(size)))

    def encode(
        self, spec: ParamSpec, difference: Vector, version: int, layout: Layout | None = None
    ) -> bytes:
        """Cut the difference off to multiples, and encode them exactly."""
        multiples = np.abs(difference)
        multiples *= np.float32(1.0 / self._size)
        multiples += np.float32(ROUNDING)
        np.floor(multiples, out=multiples)
        multiples *= np.float32(self._size)
        np.copysign(multiples, difference, out=multiples)
        return min(encode_exactly(multiples, self._size), key=len)


def build_mover(codec: str, *, seed: int) -> Mover:
    """Build the mover of a codec's spec: ``ecsq(step=...)`` moves on a lattice."""
    built = build_codec(codec)
    if isinstance(built, Codec) and not built.selection.sparse:
        quantizer = built.quantizer
        if isinstance(quantizer, Ecsq) and quantizer.step:
            return LatticeMover(quantizer.step)
    return CodecMover(codec, seed=seed)
