"""200,000 damaged payloads under fitting checksums: finite values, or refusal."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fl_opt.codecs import build_codec, decode
from fl_opt.errors import PayloadError
from tests.fixtures.vectors import patterned_vector
from tests.test_wire import SPECS, reseal

TOTAL = 200_000
SIZE = 300
SLOWEST = 2.0  # seconds, on a machine that does other things as well


def mutate(payload: bytes, generator: np.random.Generator) -> bytes:
    """Change, cut or lengthen a payload, beyond the header and the checksum."""
    data = bytearray(payload)
    kind = generator.integers(4)
    if kind == 0:
        del data[generator.integers(10, len(data)) :]
    elif kind == 1:
        data += generator.bytes(int(generator.integers(1, 9)))
    for _ in range(generator.integers(1, 4)):
        data[generator.integers(8, len(data))] = generator.integers(256)
    return reseal(data)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_mutations(spec: str) -> None:
    generator = np.random.default_rng(SPECS.index(spec))
    payload = build_codec(spec).encode(patterned_vector(SIZE), seed=3)
    refused = 0
    for _ in range(-(-TOTAL // len(SPECS))):
        begin = time.perf_counter()
        try:
            dense = decode(mutate(payload, generator), size=SIZE).to_dense()
        except PayloadError:
            refused += 1
        else:
            assert dense.shape == (SIZE,)
            assert np.isfinite(dense).all()
        assert time.perf_counter() - begin < SLOWEST
    assert refused > 0
