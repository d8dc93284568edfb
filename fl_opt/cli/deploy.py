"""A deployment: ``fl-opt deploy certificates``, ``node-keys`` and ``local``."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fl_opt.cli.mistakes import mistakes_in_one_line
from fl_opt.cli.options import AsJson

if TYPE_CHECKING:
    from types import FrameType

    from fl_opt.deployment import LocalDeployment

deploy = typer.Typer(
    no_args_is_help=True, help="Keys and certificates; a SuperLink and SuperNodes here."
)


@deploy.command()
def certificates(
    folder: Annotated[Path, typer.Argument(help="Folder for keys and certificates.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address of the SuperLink; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a certificate authority (unless there is one) and the SuperLink's certificate."""
    from fl_opt.deployment import make_authority, make_server_certificate

    with mistakes_in_one_line():
        authority = make_authority(folder)
        server = make_server_certificate(folder, authority, host or [])
    _tell([authority.certificate, authority.key, server.certificate, server.key], as_json)


@deploy.command()
def node_keys(
    folder: Annotated[Path, typer.Argument(help="Folder for the keys.")],
    names: Annotated[list[str], typer.Argument(help="A name for each SuperNode.")],
    as_json: AsJson = False,
) -> None:
    """Make a key pair for each SuperNode; register the public ones with the SuperLink."""
    from fl_opt.deployment import make_node_key

    with mistakes_in_one_line():
        pairs = [make_node_key(folder, name) for name in names]
    _tell([file for pair in pairs for file in (pair.private, pair.public)], as_json)


@deploy.command()
def local(
    supernodes: Annotated[int, typer.Option(min=1, help="How many SuperNodes.")] = 2,
    tls: Annotated[
        bool, typer.Option("--tls", help="With TLS, and SuperNodes that identify themselves.")
    ] = False,
) -> None:
    """Start a SuperLink and SuperNodes on this machine, until Ctrl-C."""
    from fl_opt.deployment import LocalDeployment

    signal.signal(signal.SIGTERM, _exit_on_signal)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a script's background
    try:
        with (
            mistakes_in_one_line(),
            LocalDeployment(supernodes, secure=tls, poll_seconds=0.2) as deployment,
        ):
            typer.echo(f"SuperLink on {deployment.address}{' with TLS' if tls else ''}")
            _watch(deployment)
    except KeyboardInterrupt:
        typer.echo("stopped")


def _watch(deployment: LocalDeployment) -> None:
    """Say when SuperNodes connect and when a process ends, until the SuperLink does."""
    from fl_opt.deployment.local import SUPERLINK, DeploymentError

    connected: set[int] = set()
    ended: set[str] = set()
    while True:
        for index in set(range(deployment.num_supernodes)) - connected:
            if (node_id := deployment.node_id(index)) is not None:
                connected.add(index)
                typer.echo(f"SuperNode {index} connected: node {node_id}")
                if len(connected) == deployment.num_supernodes:
                    _tell_how_to_run(deployment)
        for name in deployment.ended():
            if name not in ended:
                ended.add(name)
                typer.echo(f"{name} has ended; its log says: {deployment.last_line(name)}")
            if name == SUPERLINK:
                raise DeploymentError("there is no SuperLink any more")
        time.sleep(0.5)


def _tell_how_to_run(deployment: LocalDeployment) -> None:
    count = deployment.num_supernodes
    typer.echo(
        "to run an app on it, in another terminal:\n"
        f"  export FLWR_HOME={deployment.home}\n"
        f"  flwr run . {deployment.connection} --stream --run-config "
        f'"round.min-nodes={count} simulation.num-supernodes={count}"\n'
        "Ctrl-C stops everything"
    )


def _tell(files: list[Path], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([str(file) for file in files]))
    else:
        typer.echo("\n".join(f"{file}" for file in files))


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # unwinds the stack, and with it the deployment
