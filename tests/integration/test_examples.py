"""The examples, as `flwr run` runs them; what they send, on the virtual engine."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import fl_opt
import strategies
from fl_opt.config import SimulationSettings
from fl_opt.deployment.local import LocalSimulation
from fl_opt.exchange.traffic import message_bytes
from fl_opt.simulation import build_device_model
from fl_opt.simulation.engines import run_virtual

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/pyproject.toml"))
CLIENTS = 4
LEAST = {"lora": 0.85, "numpy_client": 0.85, "pytorch": 0.85, "scikit_learn": 0.85}
"""Accuracy after their rounds; guessing gives 0.1."""


def config_of(name: str) -> dict[str, int | float | str]:
    project = tomllib.loads((FOLDER / name / "pyproject.toml").read_text())
    config: dict[str, int | float | str] = project["tool"]["flwr"]["app"]["config"]
    return config


@pytest.fixture(scope="module")
def flower() -> Iterator[LocalSimulation]:
    with LocalSimulation() as flower:
        yield flower


def test_there_are_four_and_the_page_names_them() -> None:
    assert list(LEAST) == NAMES
    page = (FOLDER / "README.md").read_text()
    assert [name for name in NAMES if f"[{name}]({name})" not in page] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_example_learns_by_flwr_run(
    flower: LocalSimulation, name: str, tmp_path: Path
) -> None:
    result = tmp_path / "accuracy"
    simulated = f"num-supernodes={CLIENTS} client-resources-num-cpus=1"
    run = flower.run(FOLDER / name, {"result": str(result)}, "--federation-config", simulated)
    assert run.completed, run.details
    assert float(result.read_text()) > LEAST[name]


def test_two_lines_make_flowers_quickstart_send_a_fraction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The very lines of the page: without them as an app of Flower's alone, and with them."""
    monkeypatch.syspath_prepend(str(FOLDER / "pytorch"))
    sent: dict[bool, int] = {}
    for compressed in (True, False):
        for module in [name for name in sys.modules if name.partition(".")[0] == "pytorch"]:
            monkeypatch.delitem(sys.modules, module)
        if not compressed:
            monkeypatch.setattr(strategies, "CompressedFedAvg", lambda codec: FedAvg())
            monkeypatch.setattr(
                fl_opt,
                "compression_mod",
                lambda: lambda message, context, app: app(message, context),
            )
        server = importlib.import_module("pytorch.server_app")
        client = importlib.import_module("pytorch.client_app")
        sent[compressed] = up_bytes(server.app, client.app)
    assert sent[True] < sent[False] / 20


def test_the_numpy_example_runs_where_torch_is_not_installed(tmp_path: Path) -> None:
    code = f"""
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NoTorch())
sys.path.insert(0, {str(FOLDER / "scikit_learn")!r})
from scikit_learn import client_app, server_app
from fl_opt.config import SimulationSettings
from fl_opt.simulation import build_device_model
from fl_opt.simulation.engines import run_virtual
config = {{**{config_of("scikit_learn")!r}, "result": {str(tmp_path / "accuracy")!r}}}
devices = build_device_model(SimulationSettings(), 1)
run_virtual(server_app.app, client_app.app, config, {CLIENTS}, devices)
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float((tmp_path / "accuracy").read_text()) > LEAST["scikit_learn"]


def test_the_lines_of_the_page_are_those_of_the_example() -> None:
    page = (FOLDER / "README.md").read_text()
    added = re.findall(r"^\+ *(.+)$", page, re.MULTILINE)
    assert len(added) == 4
    source = "".join(path.read_text() for path in (FOLDER / "pytorch/pytorch").glob("*.py"))
    assert [line for line in added if line.partition("(")[0] not in source] == []


def up_bytes(server_app: ServerApp, client_app: object) -> int:
    """Run two rounds and return the bytes of replies to training messages."""
    total = 0
    counting = ServerApp()

    @counting.main()
    def main(grid: Grid, context: Context) -> None:
        real = grid.pull_messages

        def pull(*arguments: object, **options: object):  # type: ignore[no-untyped-def]
            nonlocal total
            replies = list(real(*arguments, **options))  # type: ignore[arg-type]
            total += sum(
                message_bytes(reply)
                for reply in replies
                if reply.metadata.message_type.startswith("train")
            )
            return replies

        grid.pull_messages = pull  # type: ignore[method-assign]
        server_app(grid, context)

    devices = build_device_model(SimulationSettings(), 1)
    config = {**config_of("pytorch"), "num-server-rounds": 2}
    run_virtual(counting, client_app, config, CLIENTS, devices)  # type: ignore[arg-type]
    return total
