"""TLS and keys of SuperNodes on a real SuperLink: who gets in, and who is turned away."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fl_opt.config import ConfigValue
from fl_opt.deployment import LocalDeployment, make_authority, make_node_key
from run_simulation import PROJECT

pytestmark = pytest.mark.integration

PATIENCE = 300.0


def said(flower: LocalDeployment, index: int, words: str) -> bool:
    """Wait for words in a SuperNode's log; say whether they came."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if words in flower.supernode_log(index).read_text():
            return True
        time.sleep(0.2)
    return False


def test_a_run_with_tls_and_keys_and_who_is_turned_away(tmp_path: Path) -> None:
    config: dict[str, ConfigValue] = {
        "dataset": "synthetic",
        "num-server-rounds": 2,
        "train.local-epochs": 1,
        "simulation.num-supernodes": 2,
        "round.min-nodes": 2,
        "output.folder": str(tmp_path),
        "output.name": "run",
    }
    with LocalDeployment(2, secure=True, poll_seconds=0.2) as flower:
        trust = ["--root-certificates", str(flower.keys / "ca.crt")]
        stranger = make_node_key(tmp_path, "stranger")
        known = flower.keys / "supernode-1.key"
        other = make_authority(tmp_path / "other")

        # A key that nobody has registered, none at all, another authority, no TLS.
        flower.kill_supernode(1)
        for options, words in (
            (
                [*trust, "--auth-supernode-private-key", str(stranger.private)],
                "Failed to activate SuperNode",
            ),
            (trust, "All SuperNodes must be registered"),
            (
                [
                    *("--root-certificates", str(other.certificate)),
                    *("--auth-supernode-private-key", str(known)),
                ],
                "certificate verify failed",
            ),
            (["--insecure"], "Connection attempt failed"),
        ):
            flower.start_supernode_with(1, options)
            found = said(flower, 1, words)
            log = flower.supernode_log(1).read_text()
            assert found, log
            assert flower.node_id(1) is None
            if "supernode-1" not in flower.ended():
                flower.kill_supernode(1)

        flower.start_supernode(1)
        finished = flower.run(PROJECT, config, timeout=PATIENCE)
    assert finished.completed, finished
    lines = (tmp_path / "run/rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["participants"] for line in lines] == [0, 2, 2]


def test_the_command_starts_it_says_how_to_use_it_and_leaves_nothing() -> None:
    command = "from fl_opt.cli import app; app()"
    arguments = ["deploy", "local", "--supernodes", "2", "--tls"]
    started = subprocess.Popen(
        [sys.executable, "-uc", command, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    lines: list[str] = []
    try:
        for line in started.stdout:
            lines.append(line.strip())
            if "Ctrl-C" in line:
                break
        started.send_signal(signal.SIGINT)
        rest, _ = started.communicate(timeout=60)
        assert started.returncode == 0
    finally:
        started.kill()
        started.wait()
    assert lines[0].startswith("SuperLink on 127.0.0.1:")
    assert sum("connected: node" in line for line in lines) == 2
    assert rest.strip() == "stopped"
    [home] = [line.partition("FLWR_HOME=")[2] for line in lines if "FLWR_HOME=" in line]
    assert not Path(home).exists()
    assert not [p for p in psutil.process_iter() if _home(p) == home]


def _home(process: psutil.Process) -> str | None:
    try:
        home: str | None = process.environ().get("FLWR_HOME")
        return home
    except psutil.Error:
        return None
