"""From the records of runs: ``fl-opt report``, ``fl-opt trace`` and ``fl-opt spans``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fl_opt.cli.mistakes import mistakes_in_one_line
from fl_opt.cli.options import AsJson


def report(
    *,
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, such as runs/<time>.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path(
        "report.html"
    ),
    csv: Annotated[
        Path | None, typer.Option(help="Folder for rounds.csv and clients.csv.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Folder for the charts as pictures ([plot]).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the names of all files as JSON.")
    ] = False,
) -> None:
    """Write one page about a run, or about several side by side; it needs no network."""
    from fl_opt.reporting import load_run
    from fl_opt.reporting.report import write_csv, write_png, write_report

    with mistakes_in_one_line():
        found = [load_run(run) for run in runs]
        write_report(found, output)
        files = [output]
        files += write_csv(found, csv) if csv is not None else []
        files += write_png(found, png) if png is not None else []
    if as_json:
        typer.echo(json.dumps([str(file) for file in files]))
    else:
        typer.echo("\n".join(f"wrote {file}" for file in files))


def trace(
    run: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/<time>.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The trace.")] = Path(
        "trace.json"
    ),
    as_json: AsJson = False,
) -> None:
    """Write a run as a trace for ui.perfetto.dev: server and clients on one axis of time."""
    from fl_opt.reporting import load_run
    from fl_opt.reporting.trace import write_trace

    with mistakes_in_one_line():
        write_trace(load_run(run), output)
    typer.echo(json.dumps([str(output)]) if as_json else f"wrote {output}")


def spans(
    run: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/<time>.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Print how long each part of the rounds took, in real seconds.

    With profiling.spans also what the parts consist of, and which took memory to its peak.
    """
    from rich.console import Console
    from rich.table import Table

    from fl_opt.reporting import load_run
    from fl_opt.reporting.spans import spans as spans_of
    from fl_opt.reporting.units import format_bytes

    with mistakes_in_one_line():
        found = spans_of(load_run(run))
    if as_json:
        typer.echo(json.dumps([asdict(span) for span in found]))
        return
    table = Table("side")
    table.add_column("part", no_wrap=True)
    for name in ("count", "mean ms", "spread ms", "p95 ms", "total s", "to peak"):
        table.add_column(name, justify="right")
    for span in found:
        milliseconds = (f"{1e3 * value:.1f}" for value in (span.mean, span.spread, span.p95))
        *outer, name = span.name.split("/")
        memory = "-" if span.memory_bytes is None else format_bytes(span.memory_bytes)
        table.add_row(
            span.side,
            "  " * len(outer) + name,
            str(span.count),
            *milliseconds,
            f"{span.total:.2f}",
            memory,
        )
    Console().print(table)
