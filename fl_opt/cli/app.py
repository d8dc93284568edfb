"""All commands together."""

from __future__ import annotations

from pathlib import Path

import typer

from fl_opt.cli import lists, machine, payloads, records, start
from fl_opt.cli.deploy import deploy
from fl_opt.cli.run import run_command

app = typer.Typer(
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Tools around fl-opt. Exit codes: 0 done, 1 faults found (doctor), 2 a mistake in "
    "what was asked for, which one line on standard error names, 130 interrupted.",
)
app.command("run")(run_command(Path()))
app.command()(payloads.bench)
app.command()(payloads.inspect)
app.command()(lists.codecs)
app.command()(lists.strategies)
app.command()(start.init)
app.command()(machine.doctor)
app.command()(machine.profile)
app.add_typer(deploy, name="deploy")
app.command()(records.report)
app.command()(records.trace)
app.command()(records.spans)
app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": ["--help"],
    }
)(machine.supernode)
