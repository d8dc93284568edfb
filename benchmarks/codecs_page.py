"""The page of measurements in the documentation, from the rows of ``benchmarks.codecs``."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

_HEADER = """\
# Codecs, measured

Written by `python -m benchmarks.codecs --page docs/codecs-measured.md --plot
docs/rate-distortion.png` on {machine} with Python {python} and numpy {numpy}. Bytes are lengths
of payloads, everything included. *Of entropy* compares them with the entropy of as many
independent positions and signs; *of D(R)* the error with the least that any code can reach at
this rate on Gaussian values, 2^(-2 bits).

![Rate and distortion](rate-distortion.png)
"""


def write_page(rates: list[Row], speeds: list[Row], path: Path) -> None:
    """Write a Markdown page with a table a source and one of speeds."""
    lines = _HEADER.format(
        machine=platform.machine(), python=platform.python_version(), numpy=np.__version__
    ).splitlines()
    for source in dict.fromkeys(row["source"] for row in rates):
        rows = [row for row in rates if row["source"] == source]
        lines += ["", f"## {source}", "", *_rate_lines(rows)]
    lines += [
        "",
        "## Speed",
        "",
        "Encoding, encoding with feedback, and decoding and adding, in multiples of one copy",
        "of the vector (10 million float32 unless said otherwise); medians of runs that take",
        "turns.",
        "",
        *_speed_lines(speeds),
        "",
    ]
    path.write_text("\n".join(lines))


def _rate_lines(rows: list[Row]) -> list[str]:
    lines = [
        "| codec | bytes | bits | fp32 / | NMSE | cosine | of entropy | of D(R) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        entropy, bound = row["of-entropy"], row["over-gaussian-bound"]
        cells = (
            f"`{row['codec']}`".replace("|", "\\|"),
            f"{row['bytes']:,}",
            f"{row['bits-per-parameter']:.4f}",
            f"{32 / row['bits-per-parameter']:.1f}",
            f"{row['nmse']:.3g}",
            f"{row['cosine']:.4f}",
            f"{entropy:.4f}" if entropy else "",
            f"{bound:.2f}" if bound else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _speed_lines(rows: list[Row]) -> list[str]:
    lines = ["| codec | encode | + feedback | decode + add |", "|---|--:|--:|--:|"]
    for row in rows:
        codec = f"`{row['codec']}`".replace("|", "\\|")
        cells = (
            f"{row['encode-copies']:.1f}",
            f"{row['feedback-copies']:.1f}",
            f"{row['decode-copies']:.2f}",
        )
        lines.append(f"| {codec} | {' | '.join(cells)} |")
    return lines
