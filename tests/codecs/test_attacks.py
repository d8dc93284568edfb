"""The corpus of attacks: each payload is refused, for the reason it was, at little cost."""

from __future__ import annotations

import re
import time
import tracemalloc

import pytest

from fl_opt.codecs import decode
from fl_opt.errors import PayloadError
from tests.fixtures.attacks import ATTACKS, SIZE, Attack

MOST_BYTES = 1 << 20
SLOWEST = 2.0  # seconds, on a machine that does other things as well


def test_there_are_many_reasons() -> None:
    assert len({attack.reason for attack in ATTACKS}) == len(ATTACKS) >= 40


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_it_is_refused_as_ever(attack: Attack) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(PayloadError) as refused:
            decode(attack.payload, size=SIZE)
        seconds = time.perf_counter() - began
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert re.sub(r"\d[\d.e+-]*", "#", str(refused.value)) == attack.reason
    assert peak < MOST_BYTES
    assert seconds < SLOWEST
