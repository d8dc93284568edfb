"""The command line refuses what is wrong in one line, before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import run_simulation
from fl_opt import local_run
from fl_opt.config import Settings, load_settings
from fl_opt.errors import ConfigError, FlOptError
from fl_opt.local_run import app_defaults
from fl_opt.simulation import engines
from run_simulation import cli, parse_run_config, run


class TestRunConfig:
    def test_pairs_in_one_and_in_several_arguments(self) -> None:
        arguments = ["seed=7 uplink.codec='topk(0.1) | fp16'", "output.save-model=true"]
        assert parse_run_config(arguments) == {
            "seed": 7,
            "uplink.codec": "topk(0.1) | fp16",
            "output.save-model": True,
        }

    def test_later_arguments_win(self) -> None:
        assert parse_run_config(["seed=7", "seed=8"]) == {"seed": 8}

    def test_toml_file(self, tmp_path: Path) -> None:
        path = tmp_path / "run.toml"
        path.write_text("seed = 9\n[uplink]\ncodec = 'int8'\n")
        assert parse_run_config([str(path)]) == {"seed": 9, "uplink.codec": "int8"}

    def test_toml_file_stands_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "run.toml"
        path.write_text("seed = 9\n")
        with pytest.raises(ConfigError, match="TOML files cannot"):
            parse_run_config(["seed=7", str(path)])

    @pytest.mark.parametrize(
        "text",
        ["junk", "dataset=digits", "seed=7 junk", "seed=", "uplink.codec='int8", "seed=1=2"],
    )
    def test_refuses_what_flower_would_drop_or_misread(self, text: str) -> None:
        with pytest.raises(ConfigError, match="neither a TOML file nor pairs"):
            parse_run_config([text])

    def test_broken_or_missing_file(self, tmp_path: Path) -> None:
        path = tmp_path / "run.toml"
        with pytest.raises(ConfigError, match="does not exist"):
            parse_run_config([str(path)])
        path.write_text("seed = = 9")
        with pytest.raises(ConfigError, match="neither a TOML file"):
            parse_run_config([str(path)])

    def test_defaults_are_those_of_the_settings(self) -> None:
        assert load_settings(app_defaults(run_simulation.PROJECT)) == Settings()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-c", "uplink.codek='int8'"], ["'uplink.codek'", "did you mean 'uplink.codec'?"]),
        (["-c", "uplink.codec='topk(2.0)'"], ["topk(2.0)", "position"]),
        (["-c", "uplink.codec='uniform(99)'"], ["uniform(99)", "99"]),
        (["-c", "downlink.codec='topk(2)'"], ["topk(2)", "position"]),
        (["-c", "downlink.mode='full' downlink.codec='stc'"], ["downlink codec", "fp32"]),
        (["-c", "downlink.mode='fast'"], ["downlink.mode", "'shared'"]),
        (["-c", "server-optimizer='sgd(eta=0)'"], ["sgd(eta=0)", "eta"]),
        (["-c", "faults.lose-up=1.5"], ["faults.lose-up", "1.5"]),
        (["--engine", "ray", "-c", "faults.lose-up=0.5"], ["'ray' has no faults"]),
        (["-c", "round.clients=11"], ["more participants than clients (10)"]),
        (["-c", "evaluate.clients=6", "--num-supernodes", "5"], ["evaluate.clients", "(5)"]),
        (["-c", "round.min-replies=11"], ["round.min-replies", "(10)"]),
        (["-c", "num-server-rounds=0"], ["num-server-rounds", "0"]),
        (["-c", "nonsense"], ["'nonsense'", "pairs"]),
        (["--num-supernodes", "0"], ["simulation.num-supernodes"]),
        (["--workers", "-1"], ["simulation.workers", "-1"]),
        (["--engine", "ray", "--workers", "2"], ["'ray'", "'simulation.workers' = 2"]),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_run, "_execute", _must_not_run)
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_unknown_engine() -> None:
    with pytest.raises(ConfigError, match="engine 'cloud' is not one of virtual, ray"):
        run(engine="cloud")  # type: ignore[arg-type]


def test_an_error_of_several_lines_is_printed_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise FlOptError("first\n  second")

    monkeypatch.setattr(local_run, "_execute", fail)
    result = CliRunner().invoke(cli, [])
    assert (result.exit_code, result.stderr) == (2, "error: first second\n")


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local_run, "_execute", interrupt)
    result = CliRunner().invoke(cli, [])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(("arguments", "workers"), [([], 1), (["--workers", "0"], 0)])
def test_workers_reach_the_engine(
    arguments: list[str], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(*_: object, workers: int, **__: object) -> None:
        raise FlOptError(f"workers: {workers}")

    monkeypatch.setattr(engines, "run_virtual", take)
    result = CliRunner().invoke(cli, [*arguments, "--output", str(tmp_path / "one")])
    assert result.stderr == f"error: workers: {workers}\n"


def test_mistakes_are_found_before_torch_is_loaded() -> None:
    script = (
        "import sys, run_simulation\n"
        "try:\n"
        "    run_simulation.run({'round.clients': 99})\n"
        "except ValueError as error:\n"
        "    print(error, 'torch' in sys.modules, 'ray' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=run_simulation.PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "99: more participants" in done.stdout
    assert done.stdout.endswith("False False\n")


def test_a_run_prints_its_summary_as_json(tmp_path: Path) -> None:
    config = "num-server-rounds=2 evaluate.federated-every=2 train.local-epochs=1"
    arguments = ["-c", config, "--num-supernodes", "3", "--output", str(tmp_path / "one")]
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((tmp_path / "one" / "summary.json").read_text())
    assert (summary["status"], summary["rounds-done"], summary["engine"]) == (
        "completed",
        2,
        "virtual",
    )
    assert summary["participants"] == 6
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 2
    assert "holds a run record already" in again.stderr


def _must_not_run(*_: object) -> None:
    raise AssertionError("validated too late")
