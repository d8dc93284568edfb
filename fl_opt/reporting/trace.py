"""A run as a trace that Perfetto and ``chrome://tracing`` show: who did what, when.

One row for the server, one for each client. On the virtual engine time is that of the virtual
clock, on which the server's own work takes none; elsewhere it is real time, and what a client
did is known by its length and by when its reply was read.

The format is the JSON of "Trace Event Format" (Google): complete events, times in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fl_opt.profiling.rounds import SERVER_PARTS, ClientRecord, RoundRecord
from fl_opt.reporting.reader import Run
from fl_opt.reporting.strict_json import to_json

Event = dict[str, Any]

_SERVER, _CLIENTS = 1, 2


def write_trace(run: Run, path: Path) -> None:
    """Write the trace of a run into a file; its folder is made."""
    text = to_json(trace(run))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def trace(run: Run) -> dict[str, Any]:
    """Return a trace, ready for JSON.

    Parameters
    ----------
    run : Run

    Returns
    -------
    dict
        With ``traceEvents``; all times are at least 0.
    """
    nodes = sorted({client.node_id for record in run.records for client in record.clients})
    rows = {node: number for number, node in enumerate(nodes)}
    events = list(_names(run, rows))
    spans: list[Event] = []
    begin = 0.0
    for record in run.records:
        spans += _server(record, begin)
        for client in record.clients:
            spans += _client(record, client, rows[client.node_id], begin)
        begin += _length(record)
    # A late reply's work began in an earlier round, the first round's never before the run.
    first = min((span["ts"] for span in spans), default=0.0)
    for span in spans:
        span["ts"] = round(span["ts"] - min(first, 0.0), 3)
    events += sorted(spans, key=lambda span: (span["ts"], -span["dur"]))
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "run": run.summary.info.folder.name,
            "clock": "virtual" if _is_virtual(run) else "real",
        },
    }


def _is_virtual(run: Run) -> bool:
    return run.summary.time.virtual_total is not None


def _length(record: RoundRecord) -> float:
    return record.wall_seconds if record.virtual_seconds is None else record.virtual_seconds


def _names(run: Run, rows: dict[int, int]) -> Iterator[Event]:
    clock = "virtual time" if _is_virtual(run) else "real time"
    yield _name("process_name", _SERVER, 0, f"server ({clock})")
    yield _name("process_name", _CLIENTS, 0, f"clients ({clock})")
    yield _name("thread_name", _SERVER, 0, "rounds")
    for node, row in rows.items():
        yield _name("thread_name", _CLIENTS, row, f"client {row} (node {node})")


def _server(record: RoundRecord, begin: float) -> Iterator[Event]:
    """Yield the round, and in real time its parts within it."""
    about = {
        "accuracy": record.accuracy,
        "participants": record.participants,
        "failures": record.failures,
        "bytes-down": record.bytes_down,
        "bytes-up": record.bytes_up,
    }
    parts = {name: record.parts[name] for name in SERVER_PARTS if name in record.parts}
    if record.virtual_seconds is not None:
        about |= {f"real seconds: {name}": seconds for name, seconds in parts.items()}
    about |= {
        f"real seconds: {total.path}": total.seconds
        for total in record.spans
        if "/" in total.path
    }
    yield _span(f"round {record.server_round}", _SERVER, 0, begin, _length(record), about)
    if record.virtual_seconds is None:
        end = begin + record.wall_seconds
        for name, seconds in parts.items():
            length = min(seconds, max(end - begin, 0.0))
            yield _span(name, _SERVER, 0, begin, length, {})
            begin += length


def _client(
    record: RoundRecord, client: ClientRecord, row: int, begin: float
) -> Iterator[Event]:
    """Yield a client's answer, and within it what it consists of."""
    if client.arrived is None or client.error is not None or not client.seconds:
        return
    end = begin + client.arrived
    start = end - client.seconds
    about: dict[str, Any] = {
        "examples": client.num_examples,
        "bytes-down": client.bytes_down,
        "bytes-up": client.bytes_up,
        "steps missed": client.staleness,
    }
    if client.codec_up:
        about |= {"codec up": client.codec_up, "codec down": client.codec_down}
    if client.compute_seconds is not None:
        about |= {f"real seconds: {total.path}": total.seconds for total in client.spans}
    yield _span(
        f"answer, round {record.server_round}", _CLIENTS, row, start, client.seconds, about
    )
    for name, length in _pieces(client):
        length = min(length, max(end - start, 0.0))  # noqa: PLW2901
        if name:
            yield _span(name, _CLIENTS, row, start, length, {})
        start += length
    if client.compute_seconds is None:
        yield from _within(client, row, end)


def _within(client: ClientRecord, row: int, end: float) -> Iterator[Event]:
    """Yield what a client's work consisted of, in real time: it ended with the reply."""
    work = max((total.start + total.seconds for total in client.spans), default=0.0)
    measured = {"train", "encode"}  # shown in any case
    for total in client.spans:
        if total.path not in measured:
            about = {"memory, new peak by": total.memory_bytes}
            start = end - work + total.start
            yield _span(total.path, _CLIENTS, row, start, total.seconds, about)


def _pieces(client: ClientRecord) -> list[tuple[str, float]]:
    """Return what an answer consists of, in order; an empty name is time not accounted for."""
    if client.compute_seconds is not None:
        return [
            ("download", client.download_seconds or 0.0),
            ("compute", client.compute_seconds),
            ("upload", client.upload_seconds or 0.0),
        ]
    work = client.train_seconds + client.encode_seconds
    # When the client began is not known: its work is shown at the end, before the reply.
    return [
        ("", max(client.seconds - work, 0.0)),
        ("train", client.train_seconds),
        ("encode", client.encode_seconds),
    ]


def _span(  # noqa: PLR0917
    name: str, process: int, row: int, start: float, length: float, about: dict[str, Any]
) -> Event:
    return {
        "name": name,
        "cat": "fl-opt",
        "ph": "X",
        "ts": 1e6 * start,
        "dur": round(1e6 * length, 3),
        "pid": process,
        "tid": row,
        "args": about,
    }


def _name(kind: str, process: int, row: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": process, "tid": row, "args": {"name": name}}
