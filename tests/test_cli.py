"""The command ``fl-opt``; what it says of payloads is tested with their inspection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fl_opt import build_codec
from fl_opt.cli import app
from strategies.catalogue import catalogue

FL_OPT = "from fl_opt.cli import app; app(prog_name='fl-opt')"


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


def test_codecs_lists_every_stage_that_can_be_built() -> None:
    result = CliRunner().invoke(app, ["codecs", "--json"])
    rows = json.loads(result.output)
    places = list(dict.fromkeys(row["setting"] for row in rows))
    assert places == ["rate", "transform", "select", "quantize", "code", "preset"]
    for row in rows:
        assert row["about"]
        if row["setting"] == "preset":
            build_codec(row["name"])
    table = CliRunner().invoke(app, ["codecs"], env={"COLUMNS": "160"}).output
    assert all(row["name"] in table for row in rows)
    assert "density: float = 0.01" in table


def test_profile_of_batch_sizes(tmp_path: Path) -> None:
    picture = tmp_path / "profile.svg"
    settings = "dataset='synthetic' train.local-epochs=1 simulation.num-supernodes=4"
    arguments = ["profile", "--batch-sizes", "32,8", "-c", settings, "--client", "3"]
    result = CliRunner().invoke(app, [*arguments, "--json", "--plot", str(picture)])
    assert result.exit_code == 0
    profile = json.loads(result.stdout)
    assert [row["batch-size"] for row in profile["rows"]] == [8, 32]
    assert all(row["samples-per-second"] > 0 for row in profile["rows"])
    assert "<svg" in picture.read_text()
    table = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"}).output
    assert f"Local training on {profile['num-examples']} examples" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-sizes", "16,x"], "error: --batch-sizes '16,x': whole numbers from 1"),
        (["--batch-sizes", "0"], "error: --batch-sizes '0': whole numbers from 1"),
        (["-c", "trian.momentum=1"], "error: unknown setting 'trian.momentum'; did you mean"),
        (["-c", "dataset"], "error: run config 'dataset' is neither a TOML file nor pairs"),
        (["-c", "dataset='synthetic'", "--client", "10"], "error: there is no partition 10"),
    ],
)
def test_profile_says_what_is_wrong_in_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["profile", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_the_command_itself_is_light() -> None:
    code = "import sys, fl_opt.cli; print(sorted({'torch', 'flwr'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_bench_measures_codecs_on_a_file(tmp_path: Path) -> None:
    vector = np.random.default_rng(1).laplace(size=(40, 50)).astype(np.float32)
    np.save(tmp_path / "update.npy", vector)
    codecs = ["none", "topk(0.1) | fp32", "int8"]
    chosen = [word for codec in codecs for word in ("--codec", codec)]
    arguments = ["bench", str(tmp_path / "update.npy"), *chosen, "--repeats", "1"]
    rows = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    exact, sparse, coarse = rows
    kept = np.sort(np.square(vector, dtype=np.float64), axis=None)[-200:].sum()
    energy = np.square(vector, dtype=np.float64).sum()
    assert (exact["nmse"], exact["cosine"]) == (0.0, pytest.approx(1.0))
    assert sparse["nmse"] == pytest.approx(1 - kept / energy)
    assert sparse["num_bytes"] == len(build_codec(codecs[1]).encode(vector.ravel()))
    assert coarse["ratio"] == pytest.approx(8000 / coarse["num_bytes"])
    assert all(row["encode_ms"] > 0 and row["decode_ms"] > 0 for row in rows)
    table = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"}).output
    assert all(str(build_codec(codec)) in table for codec in codecs)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.npy", b"hello", "not a .npy file of numbers"),
        ("whole.npy", np.arange(3), "int64"),
        ("nan.npy", np.array([1.0, np.nan], np.float32), "entry 1 of the update is nan"),
        ("empty.npy", np.zeros(0, np.float32), "empty"),
        ("objects.npy", np.array([{}], dtype=object), "not a .npy file of numbers"),
    ],
)
def test_bench_refuses_other_files(
    name: str, content: object, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)  # type: ignore[arg-type]
    result = CliRunner().invoke(app, ["bench", str(path)])
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_run_takes_the_settings_of_the_app_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.flwr.app.components]\nserverapp = 'fl_opt.server_app:app'\n"
        "[tool.flwr.app.config]\nnum-server-rounds = 2\n"
        "[tool.flwr.app.config.simulation]\nnum-supernodes = 3\n"
    )
    command = [sys.executable, "-c", FL_OPT, "run", "--json", "-c", "seed=7"]
    done = subprocess.run(
        [*command, "--output", "mine"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    settings = json.loads(done.stdout)["settings"]
    assert (settings["num-server-rounds"], settings["seed"]) == (2, 7)
    assert settings["simulation.num-supernodes"] == 3
    assert (tmp_path / "mine/rounds.jsonl").exists()


def test_run_names_a_broken_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool")
    done = subprocess.run(
        [sys.executable, "-c", FL_OPT, "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: pyproject.toml: ")


@pytest.mark.parametrize(
    ("shell", "typed"),
    [
        ("bash", {"COMP_WORDS": "fl-opt dep", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "fl-opt dep"}),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "fl-opt dep", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        ),
    ],
)
def test_shells_complete_commands(shell: str, typed: dict[str, str]) -> None:
    def ask(instruction: str) -> str:
        # Not by --show-completion, which looks at what processes this one descends from.
        return subprocess.run(
            [sys.executable, "-c", FL_OPT],
            env={**os.environ, **typed, "_FL_OPT_COMPLETE": f"{instruction}_{shell}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert "_FL_OPT_COMPLETE" in ask("source")
    assert "deploy" in ask("complete")
