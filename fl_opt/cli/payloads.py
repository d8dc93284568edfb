"""Payloads: ``fl-opt inspect``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fl_opt.cli.mistakes import mistakes_in_one_line
from fl_opt.cli.options import AsJson
from fl_opt.codecs.inspect import Section, inspect_payload
from fl_opt.errors import FlOptError, PayloadError


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
