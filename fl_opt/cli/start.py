"""To start with: ``fl-opt init``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fl_opt.cli.mistakes import mistakes_in_one_line
from fl_opt.cli.options import AsJson


def init(
    folder: Annotated[Path, typer.Argument(help="New folder; its name becomes the app's.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write a Flower app with compressed updates into a folder, to start from."""
    from fl_opt.scaffold import write_app

    with mistakes_in_one_line():
        files = write_app(folder)
    if as_json:
        typer.echo(json.dumps([str(file) for file in files]))
        return
    typer.echo("\n".join(f"wrote {file}" for file in files))
    typer.echo(f"now: flwr run {folder} --stream")
