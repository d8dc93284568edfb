"""The command ``fl-opt``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fl_opt.codecs.inspect import Section, inspect_payload
from fl_opt.errors import FlOptError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="Tools around fl-opt's payloads."
)


@app.callback()
def _tools() -> None:
    """Make ``inspect`` a command of its own, whatever their number."""


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A payload; - for standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain a payload section by section."""
    try:
        blob = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        sections = inspect_payload(blob)
    except (FlOptError, OSError) as error:
        typer.echo(f"error: {file}: {_reason(error)}", err=True)
        raise typer.Exit(2) from None
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


def _reason(error: FlOptError | OSError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
