"""Codecs: a float32 vector to a payload and back.

>>> import numpy as np
>>> from fl_opt.codecs import build_codec, decode
>>> codec = build_codec("topk(0.25) | ternary")
>>> payload = codec.encode(np.float32([0, -3, 0, 0, 1, 0, 0, 0]), seed=7)
>>> decode(payload, size=8).to_dense()
array([ 0., -2.,  0.,  0.,  2.,  0.,  0.,  0.], dtype=float32)
"""

from fl_opt.codecs.base import Codec, Encoder
from fl_opt.codecs.decode import decode, read_update
from fl_opt.codecs.spec import (
    CODERS,
    PRESETS,
    QUANTIZERS,
    RATES,
    SELECTIONS,
    TRANSFORMS,
    build_codec,
)
from fl_opt.codecs.summed import SumCodec
from fl_opt.codecs.update import DenseUpdate, SparseUpdate, Update

__all__ = [
    "CODERS",
    "PRESETS",
    "QUANTIZERS",
    "RATES",
    "SELECTIONS",
    "TRANSFORMS",
    "Codec",
    "DenseUpdate",
    "Encoder",
    "SparseUpdate",
    "SumCodec",
    "Update",
    "build_codec",
    "decode",
    "read_update",
]
