"""The command ``fl-opt``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_opt.codecs.inspect import Section, inspect_payload
from fl_opt.errors import FlOptError

if TYPE_CHECKING:
    from strategies.catalogue import Choice

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="Tools around fl-opt."
)


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


@app.command()
def strategies(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what can be chosen for a run: strategies, selections, server optimizers, ..."""
    from strategies.catalogue import catalogue  # loads Flower

    choices = catalogue()
    if as_json:
        typer.echo(json.dumps([asdict(choice) for choice in choices]))
    else:
        _print_choices(choices)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": ["--help"],
    }
)
def supernode(
    context: typer.Context,
    poll_seconds: Annotated[
        float, typer.Option(help="Longest pause before it asks for messages again.")
    ] = 0.2,
) -> None:
    """Run Flower's SuperNode, asking for messages often; all other options are its own."""
    from fl_opt.supernode import run_supernode

    try:
        run_supernode(context.args, poll_seconds)
    except FlOptError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


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


def _print_choices(choices: list[Choice]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    for setting, group in groupby(choices, key=lambda choice: choice.setting):
        last = Column("arguments", no_wrap=True)
        table = Table("name", "what it is", last, title=setting, title_justify="left")
        for choice in group:
            arguments = "\n".join(map(str, choice.arguments))
            table.add_row(choice.name, Text(choice.about), arguments)
        console.print(table)


def _reason(error: FlOptError | OSError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
