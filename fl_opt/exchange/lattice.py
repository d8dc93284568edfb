"""Arithmetic on references that comes out the same on every path.

A reference is reached by adding decoded differences to an older one: one by one, or several of
them at once. Sums of float32 depend on the order. Here every value is a whole multiple of one
step, a power of two so small that it does not matter for the model, and of so moderate size
that float32 holds it exactly. Then sums are exact, and whoever adds the same differences, in
whatever portions, holds the same bits.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from fl_opt.codecs import build_codec
from fl_opt.codecs.ecsq import MAX_MULTIPLE
from fl_opt.codecs.update import Vector

_ROOM: Final = 8.0
"""How much larger than the largest entry of the first model entries may become."""
_MANTISSA_BITS: Final = 23
_FEW: Final = 0.25
"""Share of entries other than zero up to which their positions may be worth coding."""


def choose_step(vector: Vector) -> float:
    """Return a step, in units of the weights, that suits a model: a power of two.

    Multiples of it up to eight times the largest magnitude (at least up to 8) are exact in
    float32; a model of ordinary weights gets ``2**-20``.
    """
    largest = max(1.0, float(np.abs(vector).max(initial=0.0)))
    return float(2.0 ** (math.ceil(math.log2(largest * _ROOM)) - _MANTISSA_BITS))


def fits(vector: Vector, step: float) -> bool:
    """Whether all entries are so small that sums of multiples of the step are exact."""
    bound = step * 2.0**_MANTISSA_BITS
    return bool(vector.max(initial=0.0) <= bound and vector.min(initial=0.0) >= -bound)


def snap(vector: Vector, step: float) -> Vector:
    """Round entries to multiples of the step, in place, and return the vector.

    Values of ``2**24`` steps and more are multiples of it as they are.
    """
    if step:
        vector *= np.float32(1.0 / step)
        np.rint(vector, out=vector)
        vector *= np.float32(step)
        vector += np.float32(0.0)  # turns -0.0 into 0.0: its sign would depend on the path
    return vector


def encode_exactly(difference: Vector, step: float) -> list[bytes]:
    """Encode a vector of multiples of the step without loss, in several ways to choose from.

    Parameters
    ----------
    difference : ndarray of float32, shape (size,)
    step : float
        A power of two that divides all its entries.

    Returns
    -------
    list of bytes
        Payloads that all decode to ``difference``, bit for bit; never empty.
    """
    common = _common_step(difference, step)
    specs = []
    if float(np.abs(difference).max(initial=0.0)) <= common * MAX_MULTIPLE:
        specs.append(f"ecsq(step={common!r})")
    if np.count_nonzero(difference) <= _FEW * difference.size:
        specs.append(f"threshold({common / 2!r}) | fp32")
    return [build_codec(spec).encode(difference) for spec in specs or ["fp32"]]


def _common_step(difference: Vector, step: float) -> float:
    """Return the largest power of two that divides all entries; the step if all are zero."""
    multiples = (difference * np.float32(1.0 / step)).astype(np.int64)
    bits = int(np.bitwise_or.reduce(np.abs(multiples), initial=0))
    return step * (bits & -bits or 1)
