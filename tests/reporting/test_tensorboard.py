from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fl_opt.errors import ConfigError
from fl_opt.reporting.tensorboard import TensorBoardWriter
from run_simulation import run
from tests.reporting.runs import records


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_every_round_has_its_figures(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path)
    writer.on_start(4)
    for record in records():
        writer.on_reply(record.server_round, 1, 2)
        writer.on_round(record)
    writer.on_end()
    found = read(tmp_path)
    steps, values = zip(*found["round/accuracy"], strict=True)
    assert steps == (0, 1, 2, 3, 4)
    assert values == pytest.approx((0.1, 0.5, 0.9, 0.85, 0.8))
    assert [step for step, _ in found["round/train-loss"]] == [1, 2, 3, 4]
    assert found["total/bytes"] == [(n, 1020.0 * n) for n in range(5)]
    assert found["seconds/upload"] == [(n, 2.0) for n in range(1, 5)]
    step, value = found["total/accuracy-by-kilobytes"][-1]
    assert step == 4
    assert value == pytest.approx(0.8)
    assert "round/federated-loss" not in found


def test_a_setting_turns_it_on(tmp_path: Path) -> None:
    config = {"num-server-rounds": 2, "data.max-examples": 200, "output.tensorboard": True}
    run(config, output=tmp_path / "run", quiet=True)
    assert len(read(tmp_path / "run")["round/bytes-up"]) == 3


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'fl-opt\[tensorboard\]'"):
        TensorBoardWriter(tmp_path)
