"""The command ``fl-opt``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_opt.codecs.inspect import Section, inspect_payload
from fl_opt.errors import ConfigError, FlOptError

if TYPE_CHECKING:
    from fl_opt.codecs.catalogue import Choice
    from fl_opt.doctor import Check
    from fl_opt.training.batch_profile import BatchProfile

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
        reason = error.strerror if isinstance(error, OSError) else str(error)
        typer.echo(f"error: {file}: {reason}", err=True)
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
def codecs(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what a codec is made of: stages with their settings, and presets."""
    from fl_opt.codecs.catalogue import codec_choices

    _list(codec_choices(), as_json)


@app.command()
def strategies(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what can be chosen for a run: strategies, selections, server optimizers, ..."""
    from strategies.catalogue import catalogue  # loads Flower

    _list(catalogue(), as_json)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder; its name becomes the app's.")],
) -> None:
    """Write a Flower app with compressed updates into a folder, to start from."""
    from fl_opt.scaffold import write_app

    try:
        files = write_app(folder)
    except (FlOptError, OSError) as error:
        typer.echo(f"error: {' '.join(_reason(error).split())}", err=True)
        raise typer.Exit(2) from None
    typer.echo("\n".join(f"wrote {file}" for file in files))
    typer.echo(f"now: flwr run {folder} --stream")


@app.command()
def doctor(
    *,
    run_config: Annotated[
        list[str] | None,
        typer.Option("--run-config", "-c", help="Settings as for `flwr run`, or a TOML file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for what is wrong with this set-up, and say how to mend it (exit code 1: faults)."""
    from fl_opt.config import load_settings
    from fl_opt.doctor import examine, worst
    from fl_opt.run_config import parse_run_config

    try:
        settings = load_settings(parse_run_config(run_config or []))
    except FlOptError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    checks = list(examine(settings))
    if as_json:
        typer.echo(json.dumps([check.to_dict() for check in checks]))
    else:
        _print_checks(checks)
    if worst(checks) == "fault":
        raise typer.Exit(1)


@app.command()
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

    try:
        found = [load_run(run) for run in runs]
        write_report(found, output)
        files = [output]
        files += write_csv(found, csv) if csv is not None else []
        files += write_png(found, png) if png is not None else []
    except (FlOptError, OSError) as error:
        typer.echo(f"error: {' '.join(_reason(error).split())}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps([str(file) for file in files]))
    else:
        typer.echo("\n".join(f"wrote {file}" for file in files))


@app.command()
def trace(
    run: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/<time>.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The trace.")] = Path(
        "trace.json"
    ),
) -> None:
    """Write a run as a trace for ui.perfetto.dev: server and clients on one axis of time."""
    from fl_opt.reporting import load_run
    from fl_opt.reporting.strict_json import to_json
    from fl_opt.reporting.trace import trace as trace_of

    try:
        text = to_json(trace_of(load_run(run)))
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
    except (FlOptError, OSError) as error:
        typer.echo(f"error: {' '.join(_reason(error).split())}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"wrote {output}")


@app.command()
def profile(
    *,
    batch_sizes: Annotated[
        str, typer.Option(help="Sizes to try, separated by commas.")
    ] = "16,32,64,128,256,512",
    run_config: Annotated[
        list[str] | None,
        typer.Option(
            "--run-config",
            "-c",
            help="Settings as for `flwr run`: \"dataset='digits' model='mlp'\", or a TOML "
            "file; may be repeated.",
        ),
    ] = None,
    client: Annotated[int, typer.Option(help="Whose examples to train on.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a picture: a .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Train with batches of several sizes: speed, memory and what a larger batch is worth."""
    from rich.console import Console

    from fl_opt.reporting.batch_profile import plot_profile, profile_dict, profile_table
    from fl_opt.reporting.strict_json import to_json

    try:
        found = _profile(_sizes(batch_sizes), run_config or [], client)
        if plot is not None:
            plot_profile(found, plot)
    except FlOptError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(to_json(profile_dict(found)))
    else:
        Console().print(profile_table(found))


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
    share_cores: Annotated[
        int, typer.Option(help="SuperNodes of this machine, which share its cores.")
    ] = 1,
) -> None:
    """Run Flower's SuperNode, asking for messages often; all other options are its own."""
    from fl_opt.supernode import run_supernode

    try:
        run_supernode(context.args, poll_seconds, share_cores)
    except FlOptError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise ConfigError(
            f"--batch-sizes {text!r}: whole numbers from 1, separated by commas, such as 16,32"
        )
    return sizes


def _profile(sizes: list[int], run_config: list[str], client: int) -> BatchProfile:
    """Build what a client of a run has, and profile it with the threads that a client has."""
    import torch

    from fl_opt.config import load_settings
    from fl_opt.data import load_dataset
    from fl_opt.models import build_model
    from fl_opt.run_config import parse_run_config
    from fl_opt.training import find_device
    from fl_opt.training.batch_profile import profile_batch_sizes

    settings = load_settings(parse_run_config(run_config))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    dataset = load_dataset(settings, settings.simulation.num_supernodes)
    examples = dataset.client(client).train
    model = build_model(settings.model, dataset.info, settings.seed)
    model = model.to(find_device(settings.train.device))
    return profile_batch_sizes(model, examples, settings.train, sizes, seed=settings.seed)


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


def _print_checks(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    colours = {"ok": "green", "note": "yellow", "fault": "red"}
    for check in checks:
        line = Text(f"{check.status:<5}", style=colours[check.status])
        line.append(f"  {check.area}: {check.name}: ", style="default")
        line.append(check.found, style="default")
        console.print(line, soft_wrap=True)
        if check.mend:
            console.print(Text(f"       {check.mend}", style="bold"), soft_wrap=True)
    counts = {status: sum(c.status == status for c in checks) for status in colours}
    console.print(f"{counts['fault']} faults, {counts['note']} notes, {counts['ok']} fine")


def _list(choices: list[Choice], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(choice) for choice in choices]))
    else:
        _print_choices(choices)


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
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
