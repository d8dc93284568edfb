from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.time_to_accuracy import methods
from benchmarks.time_to_accuracy.measure import (
    accuracy_at,
    curve,
    plateau,
    reached,
    seconds_to,
)
from benchmarks.time_to_accuracy.plan import Job, Plan
from benchmarks.time_to_accuracy.replay import Link, round_seconds
from benchmarks.time_to_accuracy.runs import Answer, Runs, Step, Trace, trace
from benchmarks.time_to_accuracy.tables import to_target
from benchmarks.time_to_accuracy.tasks import DIGITS, FASHION, Task
from fl_opt.config import ConfigValue, load_settings
from fl_opt.profiles import PROFILE_KEYS, ProfileName, profile_values

JOB: dict[str, ConfigValue] = {
    "num-server-rounds": 3,
    "simulation.num-supernodes": 3,
    "simulation.spread": 0.0,
    "evaluate.federated-every": 0,
    "train.local-epochs": 1,
}


def on(mbps: float) -> dict[str, ConfigValue]:
    return {**JOB, "simulation.uplink-mbps": mbps, "simulation.downlink-mbps": mbps}


def made_up(accuracies: list[float | None], mbps: float = 10.0) -> Trace:
    """A run of one client whose rounds send 1 MB down and 0.25 MB up, and take 2 s."""
    steps = [
        Step(a, 10**6, 250_000, 10**6, 250_000, 2.0, [Answer(10**6, 250_000, 2.0)])
        for a in accuracies
    ]
    config: dict[str, ConfigValue] = {
        "simulation.uplink-mbps": mbps,
        "simulation.downlink-mbps": mbps,
    }
    return Trace(config, steps, 1.0, "none")


@pytest.mark.slow
@pytest.mark.parametrize("mbps", [1.0, 100.0])
def test_replayed_time_is_that_of_the_engine_on_such_links(mbps: float) -> None:
    told = round_seconds(trace(on(10.0)), Link(mbps, mbps))
    passed = [step.virtual_seconds for step in trace(on(mbps)).steps]
    assert told == pytest.approx(passed, rel=1e-3)


def test_replay_on_the_links_of_the_run_changes_nothing() -> None:
    assert round_seconds(made_up([0.1, 0.2]), Link(10.0, 10.0)) == [2.0, 2.0]


def test_replay_counts_both_directions() -> None:
    # 1 MB takes 0.8 s at 10 Mbit/s, 0.25 MB 0.2 s; at 1 Mbit/s ten times as long.
    assert round_seconds(made_up([0.1]), Link(1.0, 1.0)) == pytest.approx([2.0 + 9.0 * 1.0])


def test_a_target_is_reached_when_three_evaluations_in_a_row_are_there_on_average() -> None:
    run = made_up([0.0, 0.9, 0.3, 0.6, None, 0.6, 0.9])
    assert [point.round for point in curve(run)] == [1, 2, 3, 5, 6]
    point = reached(run, 0.65)
    assert point is not None
    assert point.round == 6
    assert point.accuracy == pytest.approx(0.7)
    assert (point.bytes_down, point.bytes_up) == (7 * 10**6, 7 * 250_000)
    assert seconds_to(run, point) == 14.0
    assert reached(run, 0.71) is None
    assert plateau([run]) == pytest.approx(0.7)


def test_accuracy_for_a_number_of_bytes() -> None:
    run = made_up([0.0, 0.3, 0.3, 0.6])
    assert accuracy_at(run, 1.25e6) is None
    assert accuracy_at(run, 2.5e6) == pytest.approx(0.3)
    assert accuracy_at(run, 1e9) == pytest.approx(0.4)


def test_a_run_is_kept_and_not_carried_out_again(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    config = {**JOB, "num-server-rounds": 1}
    assert runs.get(config) is None
    assert list(runs.carry_out([config, config], jobs=1)) == [config]
    kept = runs.get(config)
    assert kept is not None
    assert len(kept.steps) == 2
    assert len(kept.steps[1].answers) == 3
    assert list(runs.carry_out([config], jobs=1)) == []


def test_best_choice_of_the_grid_is_taken(tmp_path: Path) -> None:
    plan = Plan(Runs(tmp_path), [1])
    jobs = plan.tuning(DIGITS, [methods.BASELINE])
    assert plan.best(DIGITS, methods.BASELINE) == next(iter(DIGITS.grid))
    for job, accuracy in zip(jobs, (0.5, 0.7, 0.6), strict=True):
        _keep(plan.runs, job, made_up([0.1, accuracy]))
    assert plan.best(DIGITS, methods.BASELINE) == list(DIGITS.grid)[1]
    assert plan.best(DIGITS, methods.INT8) == list(DIGITS.grid)[1]  # tuned as fp32


def test_table_of_a_method_that_never_got_there() -> None:
    ours, base = (Job(FASHION, method, "rate", 1) for method in (methods.STC, methods.BASELINE))
    table = to_target([(base, made_up([0.0, 0.8, 0.8, 0.8])), (ours, made_up([0.0]))], 0.7)
    assert "| FedAvgM, fp32 | rate | 0.600 | 1/1 | 3 | 1.00 | 4.00 | 5.00 | 1.00x |" in table
    assert f"| {methods.STC.name} | rate | 0.000 | 0/1 | - |" in table


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("balanced", FASHION),
        ("balanced", DIGITS),
        ("smallest", FASHION),
        ("smallest", DIGITS),
        ("fastest", FASHION),
    ],
)
def test_our_methods_are_the_profiles_of_that_name(name: ProfileName, task: Task) -> None:
    tried = (*methods.OURS, methods.FASTEST)
    (method,) = (method for method in tried if method.name == name)
    config = Job(task, method, next(iter(task.grid)), 1).config
    profile = profile_values(name, sampled="round.clients" in config)
    used = {key: config.get(key, "none") for key in profile}
    if used["downlink.mode"] == "per-client":  # what auto comes to here, to the byte
        used["downlink.mode"] = profile["downlink.mode"]
    assert used == dict(profile)


def test_every_job_has_settings_that_can_be_run(tmp_path: Path) -> None:
    plan = Plan(Runs(tmp_path), [1])
    tried = (methods.BASELINE, *methods.PEERS, *methods.OURS)
    jobs = plan.seeded(FASHION, tried, [1])
    others = (plan.ablation(), plan.growth(), plan.waiting(), plan.links())
    for job in [*jobs, *(job for stage in others for job in stage)]:
        load_settings(job.config)
        # Nothing is left to the default profile, which may change.
        assert set(PROFILE_KEYS) - {"balance"} <= job.config.keys()


def _keep(runs: Runs, job: Job, kept: Trace) -> None:
    runs._path(job.config).write_text(json.dumps(asdict(kept)))
