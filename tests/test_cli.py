"""The command ``fl-opt``; what it says of payloads is tested with their inspection."""

from __future__ import annotations

import json
import subprocess
import sys

from typer.testing import CliRunner

from fl_opt.cli import app
from strategies.catalogue import catalogue


def test_strategies_prints_a_table_for_each_setting() -> None:
    result = CliRunner().invoke(app, ["strategies"], env={"COLUMNS": "160"})
    assert result.exit_code == 0
    for choice in catalogue():
        assert f"\n{choice.setting} " in f"\n{result.output}"
        assert choice.name in result.output
        assert choice.about in result.output
        assert all(str(argument) in result.output for argument in choice.arguments)


def test_a_narrow_terminal_cuts_no_setting() -> None:
    result = CliRunner().invoke(app, ["strategies"], env={"COLUMNS": "80"})
    assert "exploration_decay: float = 0.95" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_strategies_prints_json() -> None:
    result = CliRunner().invoke(app, ["strategies", "--json"])
    rows = json.loads(result.output)
    assert [row["name"] for row in rows] == [choice.name for choice in catalogue()]
    schedule = next(row for row in rows if row["name"] == "step")
    assert schedule == {
        "setting": "server-schedule",
        "name": "step",
        "about": "Multiplied by `gamma` after every `rounds` rounds.",
        "arguments": [
            {"name": "rounds", "type": "int", "default": None},
            {"name": "gamma", "type": "float", "default": 0.5},
        ],
    }


def test_the_command_itself_is_light() -> None:
    code = "import sys, fl_opt.cli; print(sorted({'torch', 'flwr'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
