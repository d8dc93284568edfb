"""CSV, PNG and the command that writes everything."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from fl_opt.cli import app
from fl_opt.errors import ConfigError
from fl_opt.reporting.report import write_csv, write_png
from tests.reporting.report.runs import recorded


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_line_for_each_round_and_each_client(tmp_path: Path) -> None:
    runs = [recorded(tmp_path, name) for name in ("one", "two")]
    rounds, clients = (read(path) for path in write_csv(runs, tmp_path / "csv"))
    assert [(row["run"], row["server_round"]) for row in rounds] == [
        (name, str(number)) for name in ("one", "two") for number in range(4)
    ]
    assert rounds[1]["accuracy"] == "0.25"
    assert len(clients) == 2 * 3 * 3
    assert clients[0]["codec_up"] == "topk(0.01) | ternary"
    assert sum(int(row["bytes_up"]) for row in clients) == 2 * 3 * 300


def test_png_has_a_picture_for_each_chart(tmp_path: Path) -> None:
    runs = [recorded(tmp_path, "one"), recorded(tmp_path, "two", lean=True)]
    paths = write_png(runs, tmp_path / "png")
    assert {path.name for path in paths} >= {
        "accuracy-over-rounds.png",
        "where-a-round-s-time-goes.png",
        "accuracy-mean-of-the-last-ten-rounds-and-bytes-of-each-run.png",
    }
    for path in paths:
        with Image.open(path) as picture:
            assert picture.width == 1050


def test_png_without_matplotlib_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded(tmp_path, "one")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'fl-opt\[plot\]'"):
        write_png([run], tmp_path / "png")


def test_the_command_writes_all_that_was_asked_for(tmp_path: Path) -> None:
    recorded(tmp_path, "one")
    page, tables = tmp_path / "new" / "page.html", tmp_path / "csv"
    arguments = ["report", str(tmp_path / "one"), "-o", str(page), "--csv", str(tables)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    files = [page, tables / "rounds.csv", tables / "clients.csv"]
    assert result.output.splitlines() == [f"wrote {file}" for file in files]
    assert all(file.stat().st_size for file in files)
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(as_json.output) == [str(file) for file in files]


@pytest.mark.parametrize("content", [None, "{}", "nonsense"])
def test_the_command_names_a_folder_that_holds_no_run(
    tmp_path: Path, content: str | None
) -> None:
    folder = tmp_path / "no-run"
    if content is not None:
        folder.mkdir()
        (folder / "summary.json").write_text(content)
    result = CliRunner().invoke(app, ["report", str(folder), "-o", str(tmp_path / "x.html")])
    assert result.exit_code == 2
    assert str(folder) in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "x.html").exists()


def test_the_command_names_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    recorded(tmp_path, "one")
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "page.html"
    result = CliRunner().invoke(app, ["report", str(tmp_path / "one"), "-o", str(place)])
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {tmp_path / 'file'}")
