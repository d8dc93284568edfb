from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fl_opt.config import ConfigValue, Settings, flat_settings, load_settings
from fl_opt.errors import ConfigError
from fl_opt.profiles import BY_PROFILE, PROFILE_KEYS, ProfileName, profile_values
from fl_opt.reporting import load_run
from fl_opt.reporting.console import headline
from run_simulation import run
from strategies import build_strategy

NAMES = get_args(ProfileName)


def decided(config: dict[str, ConfigValue]) -> dict[str, ConfigValue]:
    values = dict(flat_settings(load_settings(config)))
    return {key: values[key] for key in PROFILE_KEYS}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clients", [0, 5])
def test_a_profile_decides_what_is_left_to_it(name: ProfileName, clients: int) -> None:
    config: dict[str, ConfigValue] = {"profile": name, "round.clients": clients}
    expected = dict(profile_values(name, sampled=clients > 0))
    assert decided(config) == expected
    assert decided({**config, **dict.fromkeys(PROFILE_KEYS, BY_PROFILE)}) == expected
    build_strategy(load_settings(config))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_given_counts(name: ProfileName) -> None:
    config: dict[str, ConfigValue] = {"profile": name, "uplink.codec": "int8"}
    given = decided({**config, "balance": "equal-time(0.5)"})
    assert given["uplink.codec"] == "int8"
    assert given["balance"] == "equal-time(0.5)"
    assert given["downlink.mode"] == profile_values(name, sampled=False)["downlink.mode"]


def test_drawn_clients_keep_no_residual_and_frequent_ones_do() -> None:
    assert decided({"round.clients": 5})["uplink.feedback"] == "none"
    assert decided({})["uplink.feedback"] == "residual"


def test_no_profile_means_the_balanced_one() -> None:
    assert load_settings({}) == load_settings({"profile": "balanced"}) == Settings()


def test_profiles_are_all_of_the_same_keys() -> None:
    for name in NAMES:
        for sampled in (False, True):
            assert set(profile_values(name, sampled=sampled)) == set(PROFILE_KEYS)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"profile": "tiny"})
    assert str(caught.value) == (
        "setting 'profile' = 'tiny': should be 'balanced', 'smallest', 'fastest' or 'exact'"
    )


def test_only_what_a_profile_decides_can_be_left_to_it() -> None:
    with pytest.raises(ConfigError, match=r"train.momentum.* = 'profile': should be a valid"):
        load_settings({"train.momentum": BY_PROFILE})


def test_exact_sends_and_learns_what_no_compression_does(tmp_path: Path) -> None:
    job: dict[str, ConfigValue] = {"num-server-rounds": 2, "data.max-examples": 300}
    plain = {"uplink.codec": "none", "uplink.feedback": "none", "downlink.mode": "full"}
    exact = run({**job, "profile": "exact"}, output=tmp_path / "a", quiet=True)
    same = run({**job, **plain, "downlink.codec": "fp32"}, output=tmp_path / "b", quiet=True)
    assert exact.convergence == same.convergence
    assert exact.communication == same.communication
    ratio = exact.communication.total.compression_ratio
    assert ratio is not None
    assert ratio == pytest.approx(1.0, abs=0.01)


def test_the_headline_names_the_profile_unless_something_differs() -> None:
    named = headline(load_settings({"profile": "smallest"}), 3)
    assert "3 rounds, smallest: up topk(0.01) | ternary, down auto ecsq(0.35)" in named
    changed = headline(load_settings({"profile": "smallest", "uplink.codec": "int8"}), 3)
    assert "3 rounds, up int8, down auto ecsq(0.35)" in changed


def test_smallest_sends_less_than_balanced_and_the_record_says_which(tmp_path: Path) -> None:
    sent = {}
    for name in ("smallest", "balanced"):
        job: dict[str, ConfigValue] = {"num-server-rounds": 3, "profile": name}
        summary = run(job, output=tmp_path / name, quiet=True)
        sent[name] = summary.communication.total.payload_bytes
        assert load_run(tmp_path / name).settings.profile == name
    assert sent["smallest"] < 0.8 * sent["balanced"]
