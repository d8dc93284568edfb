"""What there is to choose from: ``fl-opt codecs`` and ``fl-opt strategies``."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import typer

from fl_opt.cli.options import AsJson

if TYPE_CHECKING:
    from fl_opt.codecs.catalogue import Choice


def codecs(as_json: AsJson = False) -> None:
    """List what a codec is made of: stages with their settings, and presets."""
    from fl_opt.codecs.catalogue import codec_choices

    _list(codec_choices(), as_json)


def strategies(as_json: AsJson = False) -> None:
    """List what can be chosen for a run: strategies, selections, server optimizers, ..."""
    from strategies.catalogue import catalogue  # loads Flower

    _list(catalogue(), as_json)


def _list(choices: list[Choice], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(choice) for choice in choices]))
    else:
        _print(choices)


def _print(choices: list[Choice]) -> None:
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
