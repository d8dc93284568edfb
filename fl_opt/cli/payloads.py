"""Codecs at work: ``fl-opt inspect`` and ``fl-opt bench``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from fl_opt.cli.mistakes import mistakes_in_one_line
from fl_opt.cli.options import AsJson
from fl_opt.codecs.inspect import Section, inspect_payload
from fl_opt.errors import DataError, FlOptError, PayloadError

if TYPE_CHECKING:
    from rich.table import Table

    from fl_opt.profiling.codec_costs import CodecCosts

_CODECS = (
    "topk(0.01) | ternary",
    "topk(0.05) | uniform(bits=4)",
    "ecsq(1)",
    "eden(1)",
    "sign",
    "int8",
    "fp16",
    "none",
)


def inspect(
    file: Annotated[Path, typer.Argument(help="A payload; - for standard input.")],
    as_json: AsJson = False,
) -> None:
    """Explain a payload section by section."""
    with mistakes_in_one_line():
        blob = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        try:
            sections = inspect_payload(blob)
        except FlOptError as error:
            raise PayloadError(f"{file}: {error}") from None
    if as_json:
        rows = [
            {"name": s.name.strip(), "bytes": s.num_bytes, "content": s.content}
            for s in sections
        ]
        typer.echo(json.dumps(rows))
    else:
        _print(sections, len(blob))


def _print(sections: list[Section], total: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("section", "bytes", "", "content")
    for section in sections:
        share = f"{section.num_bytes / total:.1%}"
        table.add_row(section.name, f"{section.num_bytes:,}", share, section.content)
    table.add_section()
    table.add_row("total", f"{total:,}", "", "")
    Console().print(table)


def bench(
    file: Annotated[
        Path | None,
        typer.Argument(help="A .npy file of floats, such as an update of yours; else drawn."),
    ] = None,
    *,
    codec: Annotated[
        list[str] | None, typer.Option(help="A codec spec; may be repeated.  [default: eight]")
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Entries of a drawn vector.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Turns that are timed.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Measure codecs on a vector: bytes, what they keep, how long they take."""
    from rich.console import Console

    from fl_opt.profiling.codec_costs import codec_costs

    with mistakes_in_one_line():
        vector = _drawn(size) if file is None else _read(file)
        with Console(stderr=True).status(f"{vector.size:,} entries"):
            found = codec_costs(codec or _CODECS, vector, repeats=repeats)
    if as_json:
        typer.echo(json.dumps([asdict(costs) for costs in found]))
    else:
        Console().print(_costs_table(found, vector.size))


def _drawn(size: int) -> NDArray[np.float32]:
    """Draw from a Laplace distribution, which updates of real training resemble."""
    return np.random.default_rng(0).laplace(scale=1e-3, size=size).astype(np.float32)


def _read(file: Path) -> NDArray[np.float32]:
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{file}: not a .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        kind = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"{file}: {kind}, where an array of floats is needed")
    return array.astype(np.float32).ravel()


def _costs_table(rows: list[CodecCosts], size: int) -> Table:
    from rich.table import Table

    table = Table(title=f"{size:,} entries, {4 * size:,} bytes as float32")
    table.add_column("codec", no_wrap=True)
    for heading in ("bytes", "fewer", "NMSE", "cosine", "encode ms", "decode ms"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.codec,
            f"{row.num_bytes:,}",
            f"{row.ratio:.1f}x",
            f"{row.nmse:.3g}",
            f"{row.cosine:.3f}",
            f"{row.encode_ms:.1f}",
            f"{row.decode_ms:.1f}",
        )
    return table
