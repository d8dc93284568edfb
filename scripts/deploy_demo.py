"""Run the app on a real network of one machine: a SuperLink and SuperNodes on loopback.

``make deploy-demo`` or ``python scripts/deploy_demo.py -c "num-server-rounds=3"``. Prints the
log of the run and then what the SuperLink counted on the wire beside our own count of the same
messages. Everything it starts is ended before it returns, also after Ctrl-C.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))  # run as a file, it sees scripts/ but not the packages

from fl_opt.deployment.local import DeploymentError, LocalDeployment, Traffic  # noqa: E402
from fl_opt.errors import FlOptError  # noqa: E402
from fl_opt.reporting import format_bytes  # noqa: E402
from run_simulation import parse_run_config  # noqa: E402

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(
    num_supernodes: Annotated[int, typer.Option(min=2, help="Number of SuperNodes.")] = 2,
    run_config: Annotated[
        list[str] | None,
        typer.Option("--run-config", "-c", help="Overrides as for `flwr run`."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the run.")] = 600.0,
) -> None:
    """Run the app over a SuperLink and SuperNodes on this machine."""
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        overrides = parse_run_config(run_config or [])
        with tempfile.TemporaryDirectory(prefix="fl-opt-demo-") as folder:
            _run(num_supernodes, overrides, Path(folder), timeout)
    except FlOptError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None


def _run(num_supernodes: int, overrides: dict[str, Any], folder: Path, timeout: float) -> None:
    config = {
        "num-server-rounds": 3,
        "simulation.num-supernodes": num_supernodes,
        "round.min-nodes": num_supernodes,
        **overrides,
        "output.folder": str(folder),
        "output.name": "demo",
    }
    with LocalDeployment(num_supernodes, poll_seconds=0.2) as deployment:
        finished = deployment.run(PROJECT, config, timeout=timeout, echo=True)
    if not finished.completed:
        raise DeploymentError(f"the run ended as {finished.status}: {finished.details}")
    summary = json.loads((folder / "demo" / "summary.json").read_text(encoding="utf-8"))
    Console().print(_traffic_table(summary["communication"], finished.traffic))


def _traffic_table(ours: dict[str, Any], theirs: Traffic) -> Table:
    table = Table(title="traffic, counted twice")
    for heading in ("", "payloads", "messages", "SuperLink", "SuperLink / messages"):
        table.add_column(heading, justify="right")
    for name, counted in (("down", theirs.outbound), ("up", theirs.inbound)):
        messages = ours[name]["message-bytes"]
        table.add_row(
            name,
            format_bytes(ours[name]["payload-bytes"]),
            format_bytes(messages),
            format_bytes(counted),
            f"{counted / messages:.3f}" if messages else "-",
        )
    return table


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # unwinds the stack, and with it the deployment


if __name__ == "__main__":
    cli()
