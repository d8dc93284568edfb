"""NVIDIA FLARE: the model quantization filters.

Bytes are the Shareable that ``ModelQuantizer`` leaves, put through FLARE's serializer (fobs
with the numpy decomposers), as for a task result; decoding is the way back, with
``ModelDequantizer``. Its log lines are switched off. The filters import bitsandbytes, which
the package does not ask for; blockwise and 4-bit quantization need a GPU and are not here.
"""

# mypy: disable-error-code="import-not-found"
# The package is in its own environment only.

from __future__ import annotations

import logging
from importlib.metadata import version

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.decomposers import numpy_decomposers
from nvflare.app_opt.pt.quantization.dequantizer import ModelDequantizer
from nvflare.app_opt.pt.quantization.quantizer import ModelQuantizer
from nvflare.fuel.utils import fobs

from benchmarks.peers.measure import Candidate, Vector, serve


def candidate(name: str, kind: str) -> Candidate:
    """Return a quantization type."""
    quantizer, dequantizer = ModelQuantizer(name), ModelDequantizer()
    context = FLContext()

    def encode(vector: Vector) -> bytes:
        shareable = DXO(DataKind.WEIGHT_DIFF, data={"update": vector}).to_shareable()
        return bytes(fobs.dumps(quantizer.process(shareable, context)))

    def decode(payload: bytes, _size: int) -> Vector:
        shareable: Shareable = dequantizer.process(fobs.loads(payload), context)
        return np.asarray(from_shareable(shareable).data["update"])

    return Candidate(name, kind, encode, decode)


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    numpy_decomposers.register()
    serve(
        version("nvflare"), [candidate("adaquant", "few bits"), candidate("float16", "16 bit")]
    )
