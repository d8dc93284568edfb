"""torch.profiler on chosen rounds and clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_opt.config import ConfigValue, load_settings
from fl_opt.errors import ConfigError
from fl_opt.profiling.torch_trace import torch_trace
from run_simulation import run


def test_traces_of_the_chosen_ones_and_the_same_result(tmp_path: Path) -> None:
    plain = run({"num-server-rounds": 3}, output=tmp_path / "plain", quiet=True)
    config: dict[str, ConfigValue] = {
        "num-server-rounds": 3,
        "profiling.torch-rounds": "1, 3-9",
        "profiling.torch-clients": "0,2-3",
        "profiling.folder": str(tmp_path / "traces"),
    }
    traced = run(config, output=tmp_path / "traced", quiet=True)
    assert traced.convergence == plain.convergence
    files = sorted(path.name for path in (tmp_path / "traces").iterdir())
    assert files == [
        f"round-{number}-client-{client}.json" for number in (1, 3) for client in (0, 2, 3)
    ]
    events = json.loads((tmp_path / "traces" / files[0]).read_text())["traceEvents"]
    assert any(event["name"].startswith("aten::") for event in events)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "traces")
    settings = load_settings({"profiling.torch-rounds": "1", "profiling.folder": folder})
    with (
        pytest.raises(ConfigError, match=r"profiling\.folder.*file"),
        torch_trace(settings, 1, 0),
    ):
        pass


@pytest.mark.parametrize("numbers", ["a", "1-", "1;2", "-1", "1,,2"])
def test_what_is_no_list_of_numbers(numbers: str) -> None:
    with pytest.raises(ConfigError, match=r"profiling\.torch-rounds"):
        load_settings({"profiling.torch-rounds": numbers})
