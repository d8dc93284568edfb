from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fl_opt.config import ConfigValue, Settings, flat_settings, load_settings, setting_names
from fl_opt.errors import ConfigError
from fl_opt.profiles import BY_PROFILE, PROFILE_KEYS

ROOT = Path(__file__).parents[1]
NAMES = list(setting_names())


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ConfigValue]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_pyproject_holds_the_defaults_to_the_letter() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    written = dict(flatten(project["tool"]["flwr"]["app"]["config"]))
    assert list(written) == list(NAMES)
    assert [key for key, value in written.items() if value == BY_PROFILE] == [
        key for key in NAMES if key in PROFILE_KEYS
    ]
    defaults = dict(flat_settings(Settings()))
    own = {key: value for key, value in written.items() if key not in PROFILE_KEYS}
    assert own == {key: defaults[key] for key in own}
    assert [key for key, value in own.items() if type(value) is not type(defaults[key])] == []
    assert load_settings(written) == Settings()


def test_every_default_in_pyproject_has_a_comment_above_or_says_all() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("[tool.flwr.app.config]")
    end = next(n for n, line in enumerate(lines) if line.startswith("# Tools"))
    self_explaining = {
        "num-server-rounds",
        "local-epochs",
        "batch-size",
        "learning-rate",
        "weight-decay",
        "downlink-mbps",
        "latency-ms",
        "samples-per-second",
        "num-supernodes",
        "name",
    }
    for before, line in zip(lines[start:end], lines[start + 1 : end], strict=False):
        key, equals, _ = line.partition(" = ")
        if equals and not line.startswith("#") and key not in self_explaining:
            assert before.startswith("#"), key


def test_nothing_set_means_the_defaults() -> None:
    assert load_settings({}) == Settings()


def test_values_land_in_their_section() -> None:
    settings = load_settings({"uplink.codec": "int8", "train.batch-size": 16, "seed": 7})
    assert (settings.uplink.codec, settings.train.batch_size, settings.seed) == ("int8", 16, 7)
    assert settings.downlink == Settings().downlink


def test_an_integer_is_a_valid_float() -> None:
    timeout = load_settings({"round.timeout": 60}).round.timeout
    assert (timeout, type(timeout)) == (60.0, float)


def test_settings_survive_the_way_through_a_flat_mapping() -> None:
    settings = load_settings({"data.partition": "iid", "simulation.spread": 0.5})
    assert load_settings(dict(flat_settings(settings))) == settings


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().seed = 3  # type: ignore[misc]


def test_exact_patterns_are_split_and_trimmed() -> None:
    assert load_settings({"exact-arrays": " a*, *b ,,"}).exact_patterns == ("a*", "*b")
    assert load_settings({"exact-arrays": ""}).exact_patterns == ()


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("codec", "did you mean 'uplink.codec' or 'downlink.codec'?"),
        ("clients", "did you mean 'round.clients' or 'evaluate.clients'?"),
        ("batch_size", "did you mean 'train.batch-size'?"),
        ("train.codec", "did you mean 'uplink.codec' or 'downlink.codec'?"),
        ("uplinks.codec", "did you mean 'uplink.codec'?"),
        ("uplink.codecs", "did you mean 'uplink.codec'?"),
        ("uplink", "did you mean 'uplink.codec' or 'uplink.feedback'?"),
        ("model.name", "did you mean 'model'?"),
        ("datset", "did you mean 'dataset'?"),
        ("server-rounds", "did you mean 'num-server-rounds'?"),
        ("lerning-rate", "did you mean 'train.learning-rate'?"),
        ("zzz", "see [tool.flwr.app.config] in pyproject.toml for all settings"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({key: 1})
    assert str(caught.value) == f"unknown setting {key!r}; {suggestion}"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("train.batch-size", 0, "should be greater than or equal to 1 or should be 'auto'"),
        ("train.batch-size", "32", "should be a valid integer or should be 'auto'"),
        ("train.batch-size", 32.0, "should be a valid integer or should be 'auto'"),
        ("train.batch-size", True, "should be a valid integer or should be 'auto'"),
        ("train.learning-rate", 0.0, "should be greater than 0"),
        ("train.learning-rate", True, "should be a valid number"),
        ("train.learning-rate", "fast", "should be a valid number"),
        ("train.momentum", 1.0, "should be less than 1"),
        ("train.optimizer", "rmsprop", "should be 'sgd', 'adam' or 'adamw'"),
        ("uplink.feedback", True, "should be a valid string"),
        ("uplink.codec", 8, "should be a valid string"),
        ("data.validation-fraction", 1.0, "should be less than 1"),
        ("evaluate.target-accuracy", 90, "should be less than or equal to 1"),
        ("evaluate.target-accuracy", -0.1, "should be greater than or equal to 0"),
        ("round.timeout", float("inf"), "should be a finite number"),
        ("round.late-replies", "wait", "should be 'accept' or 'refuse'"),
        ("evaluate.mode", "later", "should be 'piggyback' or 'message'"),
        ("downlink.mode", "fast", "should be 'full', 'shared', 'per-client' or 'auto'"),
        ("downlink.first-contact", "mail", "should be 'seed' or 'snapshot'"),
        ("downlink.catch-up", "all", "should be 'sum' or 'chain'"),
        ("downlink.memory-mb", 0, "should be greater than or equal to 1"),
        ("checkpoint.every", -1, "should be greater than or equal to 0"),
        ("resume", 1, "should be a valid boolean"),
        ("faults.restart", 1.1, "should be less than or equal to 1"),
        ("faults.slow-factor", 0.5, "should be greater than or equal to 1"),
        ("simulation.spread", float("nan"), "should be a finite number"),
        ("seed", -1, "should be greater than or equal to 0"),
        ("seed", 2**32, "should be less than 4294967296"),
        ("num-server-rounds", 0, "should be greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_refused_by_key_value_and_what_is_allowed(
    key: str, value: ConfigValue, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({key: value})
    assert str(caught.value) == f"setting {key!r} = {value!r}: {reason}"


values = st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=20), values, max_size=3))
def test_any_mapping_is_taken_or_refused_in_one_line(
    run_config: dict[str, ConfigValue],
) -> None:
    try:
        settings = dict(flat_settings(load_settings(run_config)))
    except ConfigError as error:
        message = str(error)
    else:
        message = "taken"
        assert {key: settings[key] for key in run_config} == run_config
    assert len(message.splitlines()) == 1
