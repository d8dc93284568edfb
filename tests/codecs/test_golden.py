"""Payloads written by earlier versions are read, and still written, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fl_opt.codecs import build_codec, decode
from tests.fixtures.make_payloads import PATH, SEED, SIZE, SPECS
from tests.fixtures.vectors import patterned_vector

GOLDEN = json.loads(PATH.read_text())


def test_every_spec_has_a_golden_payload() -> None:
    assert set(GOLDEN) == set(SPECS)


@pytest.mark.parametrize("spec", GOLDEN)
def test_encode_gives_the_golden_payload(spec: str) -> None:
    payload = build_codec(spec).encode(patterned_vector(SIZE), seed=SEED)
    assert payload.hex() == GOLDEN[spec]


@pytest.mark.parametrize("spec", GOLDEN)
def test_golden_payload_decodes_close_to_the_vector(spec: str) -> None:
    vector = patterned_vector(SIZE)
    decoded = decode(bytes.fromhex(GOLDEN[spec]), size=SIZE).to_dense()
    sent = decoded != 0
    quantizer = spec.split(" | ")[1]
    tolerance = {"fp32": 0.0, "fp16": 2e-3, "bf16": 2e-2}.get(quantizer)
    if tolerance is not None:
        np.testing.assert_allclose(decoded[sent], vector[sent], atol=tolerance)
    assert decoded @ vector > 0.3 * np.sqrt(np.count_nonzero(sent) / SIZE) * (
        np.linalg.norm(decoded) * np.linalg.norm(vector)
    )
    if not quantizer.startswith(("eden", "lloyd_max")):
        sent &= vector != 0  # "sign" has no zero
        assert (np.sign(decoded[sent]) == np.sign(vector[sent])).all()
