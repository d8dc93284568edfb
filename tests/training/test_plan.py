"""From settings that leave something open to a plan that does not."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.errors import ConfigError
from fl_opt.profiling.memory import resident_bytes
from fl_opt.training import plan as planning
from fl_opt.training.memory import MEGA
from fl_opt.training.plan import Plan, find_plan, fixed_plan
from tests.training.tasks import linear_model, separable


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    planning._plans.clear()
    yield
    planning._plans.clear()


def deep_model() -> nn.Module:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)), linear_model())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("trials/*")}


def test_settings_that_leave_nothing_open_are_followed_without_a_trial(tmp_path: Path) -> None:
    settings = TrainSettings(
        batch_size=10, micro_batch_size=4, precision="bf16", checkpoint_modules="0"
    )
    plan = find_plan(linear_model(), separable(9), settings, folder=tmp_path)
    assert plan == Plan(10, 4, "bf16", "0") == fixed_plan(settings)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("changes", [{"batch_size": "auto"}, {"precision": "auto"}])
def test_a_fixed_plan_leaves_nothing_open(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="batch-size or precision is 'auto'"):
        fixed_plan(TrainSettings(**changes))


def test_a_batch_size_is_found_once_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fl_opt")
    settings = TrainSettings(batch_size="auto", micro_batch_size=24)
    model, examples = deep_model(), separable(128)
    plans = [find_plan(model, examples, settings, folder=tmp_path) for _ in range(3)]
    assert plans[0].batch_size in (16, 32, 64)
    assert plans[0].micro_batch_size == min(24, plans[0].batch_size)
    assert plans[1:] == plans[:1] * 2
    assert files(tmp_path) == {"batch-size.json", "memory.json"}
    assert caplog.messages == [f"training by {plans[0]}"]


def test_a_precision_is_found(tmp_path: Path) -> None:
    settings = TrainSettings(batch_size=64, precision="auto")
    plan = find_plan(deep_model(), separable(128), settings, folder=tmp_path)
    assert plan in (Plan(64, 64, "fp32"), Plan(64, 64, "bf16"))


def test_another_process_plans_from_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(batch_size="auto", memory_limit_mb=100_000)
    found = find_plan(deep_model(), separable(128), settings, folder=tmp_path)
    planning._plans.clear()  # as in a new process
    monkeypatch.setattr("fl_opt.training.memory.measure_memory", None)
    monkeypatch.setattr("fl_opt.training.batch_size.measure_speeds", None)
    assert find_plan(deep_model(), separable(128), settings, folder=tmp_path) == found


def test_a_limit_with_room_changes_nothing(tmp_path: Path) -> None:
    settings = TrainSettings(batch_size=64, memory_limit_mb=100_000, checkpoint_modules="auto")
    plan = find_plan(deep_model(), separable(128), settings, folder=tmp_path)
    assert plan == Plan(64, 64)


def test_a_limit_without_room_is_refused_again_and_again(tmp_path: Path) -> None:
    settings = TrainSettings(memory_limit_mb=resident_bytes() // MEGA // 2)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"train\.memory-limit-mb = .* cannot be kept"):
            find_plan(deep_model(), separable(128), settings, folder=tmp_path)


def test_a_limit_makes_passes_smaller(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 50_000), nn.ReLU(), nn.Linear(50_000, 3))
    find_plan(  # brings in what the first trial does
        model, separable(8), TrainSettings(memory_limit_mb=100_000), folder=tmp_path
    )
    room = resident_bytes() // MEGA + 150
    settings = TrainSettings(batch_size=4096, memory_limit_mb=room)
    plan = find_plan(model, separable(128), settings, folder=tmp_path)
    # An example keeps 400 kB at least, and the heap has gaps.
    assert plan.batch_size == 4096
    assert 10 < plan.micro_batch_size < 300
    (result,) = json.loads((tmp_path / "trials" / "memory.json").read_text())[
        "results"
    ].values()
    assert max(slope for _, slope in result["value"]) > 400_000
