"""The list of what can be chosen is complete, and what it says is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args

from fl_opt.config import Settings, flat_settings, load_settings
from fl_opt.errors import ConfigError
from fl_opt.exchange.submodels import SUBMODELS, build_submodels
from strategies.averaging import AVERAGES, ModelAverage
from strategies.balance import BALANCES, Balance
from strategies.catalogue import Argument, Choice, catalogue
from strategies.norm_bound import NORM_BOUNDS, NormBound
from strategies.pruning_rules import PRUNINGS, build_pruning
from strategies.registry import build_strategy
from strategies.schedule import SCHEDULES, build_schedule
from strategies.selection import SELECTIONS, build_selection
from strategies.server_optimizer import SERVER_OPTIMIZERS, build_server_optimizer
from strategies.specs import STRATEGIES
from strategies.staleness import STALENESS, build_staleness

BUILD: dict[str, Callable[[str], Any]] = {
    "strategy": lambda spec: build_strategy(Settings(strategy=spec)),
    "selection": lambda spec: build_selection(spec, seed=0),
    "balance": Balance,
    "pruning": build_pruning,
    "submodels": build_submodels,
    "server-optimizer": build_server_optimizer,
    "server-schedule": build_schedule,
    "server-average": ModelAverage,
    "round.staleness": build_staleness,
    "round.max-update-norm": NormBound,
}
CHOICES = catalogue()
PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"


def spec_of(choice: Choice) -> str:
    """The choice with all of its arguments given."""
    values = [
        7 if argument.default is None else argument.default for argument in choice.arguments
    ]
    names = [argument.name for argument in choice.arguments]
    given = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
    return f"{choice.name}({given})"


def test_everything_that_has_a_name_is_listed() -> None:
    tables: list[Any] = [
        STRATEGIES,
        SELECTIONS,
        BALANCES,
        PRUNINGS,
        SUBMODELS,
        SERVER_OPTIMIZERS,
        SCHEDULES,
        AVERAGES,
        STALENESS,
        NORM_BOUNDS,
    ]
    assert [choice.name for choice in CHOICES] == [name for table in tables for name in table]


def test_settings_are_those_of_the_run_config() -> None:
    assert {choice.setting for choice in CHOICES} == set(BUILD)
    assert set(BUILD) <= {key for key, _ in flat_settings(Settings())}


@pytest.mark.parametrize(
    "choice", CHOICES, ids=lambda choice: f"{choice.setting}-{choice.name}"
)
def test_a_spec_made_of_what_is_listed_can_be_built(choice: Choice) -> None:
    BUILD[choice.setting](spec_of(choice))
    assert re.fullmatch(r".{9,90}\.", choice.about)
    needed = [argument for argument in choice.arguments if argument.default is None]
    if needed:
        with pytest.raises(ConfigError, match=f"{needed[0].name!r} must be given"):
            BUILD[choice.setting](choice.name)


def test_arguments_read_like_a_signature() -> None:
    assert str(Argument("rounds", "int", None)) == "rounds: int"
    assert str(Argument("momentum", "float", 0.0)) == "momentum: float = 0.0"


def test_all_of_it_is_in_the_docs() -> None:
    page = PAGE.read_text()
    for choice in CHOICES:
        names = [argument.name for argument in choice.arguments]
        assert f"`{choice.name}" in page, choice.name
        assert [name for name in names if not re.search(rf"\b{name}\b", page)] == [], (
            choice.name
        )


@pytest.mark.parametrize("line", re.findall(r'^    -c "(.+)"$', PAGE.read_text(), re.MULTILINE))
def test_every_example_in_the_docs_is_accepted(line: str) -> None:
    build_strategy(load_settings(parse_config_args([line])))


def test_the_code_in_the_docs_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        code = "".join(line for line in block.splitlines(keepends=True) if "start(" not in line)
        exec(code, {})  # noqa: S102
    assert len(blocks) == 3
