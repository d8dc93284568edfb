"""Tables of what was measured, and for each codec of a peer which of ours is better, if any."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

OURS: Final = "fl-opt"
KINDS: Final = ("sparse", "few bits", "8 bit", "16 bit", "exact")
"""Groups of a table; few bits: every entry is sent, in up to 4 bits or so."""
TOLERANCE: Final = 1.005
"""Distortions this close count as equal: stochastic rounding and sums differ by as much."""
BEST: Final = 5
"""The rank of a codec that is smaller and faster both ways."""
SAME_SIZE: Final = 0.002
"""Sizes that differ by this share count as equal: headers are no difference worth telling."""


def finish(rows: Iterable[dict[str, Any]], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Add bits per entry, and times in copies of the vector.

    A time is that of the fastest run: what other programs on the machine took is not in it. A
    copy is the median over an environment's codecs of the fastest copy beside each; the
    least of them would fall with the number of codecs, which differs between environments.
    """
    rows = list(rows)
    copies: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if "bytes" in row:
            copies[row["peer"], row["vector"]].append(row["copy-fastest"])
    for row in rows:
        if "bytes" in row:
            copy = statistics.median(copies[row["peer"], row["vector"]])
            row["bits-per-parameter"] = 8 * row["bytes"] / sizes[row["vector"]]
            row["encode-copies"] = row["encode-fastest"] / copy
            row["decode-copies"] = row["decode-fastest"] / copy
    return rows


def table_of(vector: str, size: int, rows: Sequence[Row]) -> Table:
    """Return the table of a vector: groups by kind, the smallest payload first."""
    table = Table(title=f"{vector}: {size:,} entries")
    for heading in ("", "codec", "bytes", "bits", "NMSE", "encode", "decode", "memory"):
        table.add_column(heading, justify="left" if heading in ("", "codec") else "right")
    for kind in KINDS:
        table.add_section()
        group = [row for row in rows if row.get("vector") == vector and row.get("kind") == kind]
        for row in sorted(group, key=lambda row: row.get("bytes", math.inf)):
            name = (row["peer"], row["codec"])
            if "failed" in row:
                table.add_row(*name, Text(row["failed"]))
                continue
            peak = row.get("encode-memory")
            table.add_row(
                *name,
                f"{row['bytes']:,}",
                f"{row['bits-per-parameter']:.3f}",
                f"{row['nmse']:.2e}",
                f"{row['encode-copies']:,.1f}",
                f"{row['decode-copies']:,.1f}",
                "" if peak is None else f"{peak / (4 * size):.1f}",
                style="bold" if row["peer"] == OURS else "",
            )
    table.caption = (
        "encode and decode in copies of the vector, one thread each; "
        "memory: growth in an encode, in sizes of the vector"
    )
    return table


def verdict(peer: Row, ours: Sequence[Row]) -> dict[str, Any]:
    """Return which of our codecs to take instead of a peer's, on the same vector.

    Only ours with no more distortion count. Smaller and faster both ways comes first, then as
    small and faster, then smaller but slower, and so on; of equals the smallest.
    """
    result: dict[str, Any] = {key: peer[key] for key in ("vector", "peer", "codec")}
    found = [
        {
            "ours": row["codec"],
            "bytes-share": row["bytes"] / peer["bytes"],
            "encode-share": row["encode-copies"] / peer["encode-copies"],
            "decode-share": row["decode-copies"] / peer["decode-copies"],
        }
        for row in ours
        if row["nmse"] <= peer["nmse"] * TOLERANCE
    ]
    if not found:
        return result | {"ours": None, "better": False, "verdict": "NO: none as exact"}
    chosen = min(found, key=lambda row: (-_rank(row), row["bytes-share"]))
    rank = _rank(chosen)
    return result | chosen | {"better": rank == BEST, "verdict": _words(chosen)}


def _rank(row: Row) -> int:
    """4 and 5: smaller; 2 and 3: as small; the odd ones are also faster; 0: larger."""
    if row["bytes-share"] > 1 + SAME_SIZE:
        return 0  # however fast: the smallest of these is the one to tell of
    faster = max(row["encode-share"], row["decode-share"]) < 1
    return (4 if row["bytes-share"] < 1 - SAME_SIZE else 2) + int(faster)


def _words(row: Row) -> str:
    rank = _rank(row)
    slower = [name for name in ("encode", "decode") if row[f"{name}-share"] >= 1]
    words = ("larger", "same size", "smaller")[rank // 2]
    words += f", slower to {' and '.join(slower)}" if slower else ", faster"
    return words if rank == BEST else f"NO: {words}"


def verdicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a verdict for each codec of a peer on each vector."""
    measured = [row for row in rows if "nmse" in row]
    return [
        verdict(
            row, [o for o in measured if o["peer"] == OURS and o["vector"] == row["vector"]]
        )
        for row in measured
        if row["peer"] != OURS
    ]


def verdict_table(found: Sequence[Row]) -> Table:
    """Return the last table: ours against each codec of a peer, over all vectors."""
    table = Table(title="Ours at no more distortion")
    for heading in ("", "codec", "vector", "ours", "bytes", "encode", "decode", "verdict"):
        table.add_column(
            heading, justify="right" if heading in ("bytes", "encode", "decode") else "left"
        )
    last = None
    for row in sorted(found, key=lambda row: (row["peer"], row["codec"])):
        name = (row["peer"], row["codec"])
        if name != last:
            table.add_section()
        shown = name if name != last else ("", "")
        last = name
        if row["ours"] is None:
            table.add_row(*shown, row["vector"], "none", "", "", "", row["verdict"])
            continue
        table.add_row(
            *shown,
            row["vector"],
            row["ours"],
            *(f"{row[f'{key}-share']:.2f}x" for key in ("bytes", "encode", "decode")),
            row["verdict"],
            style="" if row["better"] else "yellow",
        )
    table.caption = (
        f"smaller and faster in {sum(row['better'] for row in found)} of {len(found)} cases; "
        "bytes and times: ours over the peer's. Distortion is not bias: EDEN and QSGD are "
        "unbiased, and pay for it here"
    )
    return table


def problems(rows: Iterable[Row]) -> list[str]:
    """Return a line for each peer that could not be installed or whose adapter stopped."""
    return [f"{row['peer']}: {row['failed']}" for row in rows if "vector" not in row]
