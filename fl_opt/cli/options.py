"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunConfig: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--run-config",
        "-c",
        help="Settings as for `flwr run`: \"dataset='digits' model='mlp'\", or a TOML file; "
        "may be repeated.",
    ),
]
