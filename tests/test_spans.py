"""Nested spans: sums by hand, and what another process may say of its own."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_opt.spans import MOST_SPANS, SpanLog, from_json, measuring, span, to_json

TOTAL = ["train", 0.0, 1.5, 2, 10]


def test_spans_nest_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where a path is new, its start is noted by a look of its own; the last is by take().
    now = iter([0.0, 1.0, 1.0, 2.0, 2.0, 5.0, 6.0, 8.0, 20.0, 21.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    log = SpanLog()
    with measuring(log), span("outer"):  # from 1 to 20
        for _ in range(2):  # from 2 to 5, and from 6 to 8
            with span("inner"):
                pass
    outer, inner = log.take()
    assert (outer.path, outer.start, outer.seconds, outer.count) == ("outer", 1.0, 19.0, 1)
    assert (inner.path, inner.start, inner.seconds, inner.count) == ("outer/inner", 2.0, 5.0, 2)


def test_a_span_that_fails_is_counted_and_closed() -> None:
    log = SpanLog()
    with measuring(log):
        with pytest.raises(ValueError, match="no"), span("one"):
            raise ValueError("no")
        with span("two"):
            pass
    assert [(total.path, total.count) for total in log.take()] == [("one", 1), ("two", 1)]


def test_nobody_measures_outside_or_in_another_thread() -> None:
    log = SpanLog()

    def work() -> None:
        with span("elsewhere"):
            pass

    with measuring(log):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with measuring(None):
            work()
    work()
    assert log.take() == []


def test_memory_is_what_went_beyond_the_peak() -> None:
    log = SpanLog()
    with measuring(log):
        with span("small"):
            pass
        blocks: list[NDArray[np.uint8]] = []
        with span("large"):
            while not blocks or (log._totals["large/block"].memory_bytes == 0):
                with span("block"):  # until this process has more than it ever had
                    blocks.append(np.ones(32 << 20, np.uint8))
    small, large, block = log.take()
    assert small.memory_bytes < 1 << 20
    assert block.memory_bytes > 0
    assert large.memory_bytes >= block.memory_bytes


def test_there_are_never_more_than_the_most() -> None:
    log = SpanLog()
    for number in range(MOST_SPANS + 5):
        with log.span(f"span-{number}"):
            pass
    totals = log.take()
    assert len(totals) == MOST_SPANS
    assert from_json(to_json(totals)) != []


def test_they_travel_as_they_are() -> None:
    totals = from_json(json.dumps([TOTAL]))
    assert [total.path for total in totals] == ["train"]
    assert from_json(to_json(totals)) == totals


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "[",
        json.dumps([["<script>", *TOTAL[1:]]]),
        json.dumps([["a" * 101, *TOTAL[1:]]]),
        json.dumps([["train", 0.0, -1.0, 2, 10]]),
        json.dumps([["train", 0.0, 1e300, 2, 10]]),
        json.dumps([TOTAL]).replace("1.5", "NaN"),
        json.dumps([["train", 0.0, 1.5, 2**70, 10]]),
        json.dumps([TOTAL[:4]]),
        json.dumps([TOTAL] * (MOST_SPANS + 1)),
    ],
)
def test_anything_else_from_another_process_is_nothing(text: object) -> None:
    assert from_json(text) == []
