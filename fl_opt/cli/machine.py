"""Commands about the machine: ``fl-opt doctor``, ``profile`` and ``supernode``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_opt.cli.mistakes import mistakes_in_one_line
from fl_opt.cli.options import AsJson, RunConfig
from fl_opt.errors import ConfigError

if TYPE_CHECKING:
    from fl_opt.doctor import Check
    from fl_opt.training.batch_profile import BatchProfile


def doctor(*, run_config: RunConfig = None, as_json: AsJson = False) -> None:
    """Look for what is wrong with this set-up, and say how to mend it (exit code 1: faults)."""
    from fl_opt.config import load_settings
    from fl_opt.doctor import examine, worst
    from fl_opt.run_config import parse_run_config

    with mistakes_in_one_line():
        settings = load_settings(parse_run_config(run_config or []))
    checks = list(examine(settings))
    if as_json:
        typer.echo(json.dumps([check.to_dict() for check in checks]))
    else:
        _print_checks(checks)
    if worst(checks) == "fault":
        raise typer.Exit(1)


def profile(
    *,
    batch_sizes: Annotated[
        str, typer.Option(help="Sizes to try, separated by commas.")
    ] = "16,32,64,128,256,512",
    run_config: RunConfig = None,
    client: Annotated[int, typer.Option(help="Whose examples to train on.")] = 0,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a picture: a .png, .svg or .pdf file.")
    ] = None,
) -> None:
    """Train with batches of several sizes: speed, memory and what a larger batch is worth."""
    from rich.console import Console

    from fl_opt.reporting.batch_profile import plot_profile, profile_dict, profile_table
    from fl_opt.reporting.strict_json import to_json

    with mistakes_in_one_line():
        found = _profile(_sizes(batch_sizes), run_config or [], client)
        if plot is not None:
            plot_profile(found, plot)
    if as_json:
        typer.echo(to_json(profile_dict(found)))
    else:
        Console().print(profile_table(found))


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

    with mistakes_in_one_line():
        run_supernode(context.args, poll_seconds, share_cores)


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


def _print_checks(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    colours = {"ok": "green", "note": "yellow", "fault": "red"}
    for check in checks:
        line = Text(f"{check.status:<5}", style=colours[check.status])
        line.append(f"  {check.area}: {check.name}: {check.found}", style="default")
        console.print(line, soft_wrap=True)
        if check.mend:
            console.print(Text(f"       {check.mend}", style="bold"), soft_wrap=True)
    counts = {status: sum(c.status == status for c in checks) for status in colours}
    console.print(f"{counts['fault']} faults, {counts['note']} notes, {counts['ok']} fine")
