"""A profile of batch sizes as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from fl_opt.errors import ConfigError
from fl_opt.reporting.batch_profile import plot_profile, profile_dict, profile_table
from fl_opt.reporting.strict_json import to_json
from fl_opt.training.batch_profile import BatchProfile, BatchRow

PROFILE = BatchProfile(
    num_examples=1234,
    noise_scale_before=3.4,
    noise_scale_after=math.inf,
    rows=(
        BatchRow(16, 1000.0, 400_000_000, 5_000_000, 1.0, 2.5),
        BatchRow(64, 2500.0, 420_000_000, 0, 1.0, 1.0),
    ),
)


def test_the_table_says_everything() -> None:
    console = Console(width=120, record=True)
    console.print(profile_table(PROFILE))
    lines = console.export_text().splitlines()
    assert "Local training on 1,234 examples" in lines[0]
    (small,) = (line for line in lines if " 16 " in line)
    (large,) = (line for line in lines if " 64 " in line)
    assert [cell.strip() for cell in small.split("│")[1:-1]] == [
        "16", "1,000", "400 MB", "5.00 MB", "1.00x", "2.50x",
    ]  # fmt: skip
    assert "│ - " in large or " - │" in large
    assert "3 examples before, no end after" in " ".join(" ".join(lines).split())


def test_json_has_plain_values() -> None:
    plain = json.loads(to_json(profile_dict(PROFILE)))
    assert plain["num-examples"] == 1234
    assert plain["noise-scale-after"] is None
    assert plain["rows"][0] == {
        "batch-size": 16,
        "samples-per-second": 1000.0,
        "peak-bytes": 400_000_000,
        "training-bytes": 5_000_000,
        "examples-needed": 1.0,
        "time-needed": 2.5,
    }


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "profile.png"
    plot_profile(PROFILE, path)
    with Image.open(path) as picture:
        assert picture.size == (1500, 480)
        assert len(picture.convert("L").getcolors() or []) > 10


@pytest.mark.parametrize("name", ["profile.unknown", "no/such/folder/profile.png"])
def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=r"plot '.*profile.* cannot be written: ") as caught:
        plot_profile(PROFILE, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_plots_without_matplotlib_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ConfigError, match=r"plots need matplotlib: pip install 'fl-opt\[plot\]'"
    ):
        plot_profile(PROFILE, tmp_path / "profile.png")
