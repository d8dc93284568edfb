"""The observer for MLflow on the page about watching a run, with a file store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from fl_opt.profiling.rounds import RoundObserver
from fl_opt.reporting import load_run
from run_simulation import run
from tests.docs.test_pages import DOCS, code_blocks


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before, uri = mlflow.get_tracking_uri(), (tmp_path / "mlruns").as_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


def observer() -> RoundObserver:
    [code] = [code for code in code_blocks(DOCS / "how-to/watching.md") if "mlflow" in code]
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, "watching.md", "exec"), names)  # noqa: S102 -- our own page
    found: RoundObserver = names["MlflowObserver"]()
    return found


def test_metrics_in_the_store_are_those_of_the_record(tmp_path: Path, store: str) -> None:
    config = {"num-server-rounds": 3, "evaluate.central-every": 2}
    run(config, output=tmp_path / "run", quiet=True, observers=[observer()])
    client = mlflow.MlflowClient(store)
    [logged] = client.search_runs(["0"])
    assert logged.info.status == "FINISHED"
    assert logged.data.params == {"rounds": "3"}
    records = load_run(tmp_path / "run").records
    for name, values in {
        "bytes-up": {r.server_round: r.bytes_up for r in records},
        "bytes-down": {r.server_round: r.bytes_down for r in records},
        "accuracy": {r.server_round: r.accuracy for r in records if r.accuracy is not None},
    }.items():
        history = client.get_metric_history(logged.info.run_id, name)
        assert {metric.step: metric.value for metric in history} == pytest.approx(values)
