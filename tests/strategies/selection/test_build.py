"""Specs of selections."""

from __future__ import annotations

import dataclasses

import pytest

from fl_opt.errors import ConfigError
from strategies.selection import SELECTIONS, UniformSelection, build_selection
from strategies.selection.available import Available, AvailableSelection
from strategies.selection.oort import Oort, OortSelection
from strategies.selection.power_of_choice import PowerOfChoice, PowerOfChoiceSelection
from tests.strategies.selection.reports import failed


def test_names_are_those_of_specs_and_every_setting_has_a_default() -> None:
    assert list(SELECTIONS) == [
        "uniform",
        "power-of-choice",
        "oort",
        "tiers",
        "importance",
        "round-robin",
        "available",
    ]
    for name, kind in SELECTIONS.items():
        assert build_selection(name, seed=0).name == kind.name == name
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            assert field.default is not dataclasses.MISSING
            assert field.type in ("int", "float")


@pytest.mark.parametrize("keyword", ["", "candidates="])
def test_settings_are_arguments(keyword: str) -> None:
    chosen = build_selection(f"power-of-choice({keyword}40)", seed=2).select(range(99), 5, 1)
    assert chosen == PowerOfChoiceSelection(PowerOfChoice(40), 2).select(range(99), 5, 1)
    assert chosen != PowerOfChoiceSelection(PowerOfChoice(), 2).select(range(99), 5, 3)


def test_a_filter_stands_before_a_policy() -> None:
    built = build_selection("available(longest=2) | oort(alpha=1)", seed=4)
    by_hand = AvailableSelection(Available(2), OortSelection(Oort(1.0), 4))
    for selection in (built, by_hand):
        selection.observe(failed(3))
    assert built.select(range(9), 4, 2) == by_hand.select(range(9), 4, 2)
    assert built.state() == by_hand.state()
    assert built.state()["inner"]["clients"]["nodes"] == [3]


def test_behind_a_filter_alone_is_the_uniform_policy() -> None:
    filtered = build_selection("available", seed=4)
    assert filtered.select(range(50), 4, 7) == UniformSelection(4).select(range(50), 4, 7)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "position 1: a name is expected: uniform, power-of-choice, oort, tiers, imp"),
        ("Oort", "position 1: unknown selection 'Oort'; known are uniform, power-of-choice"),
        ("available | ", "position 13: a name is expected"),
        ("available | best", "position 13: unknown selection 'best'"),
        ("available | available", "position 13: 'available' is given twice"),
        ("available oort", r"position 11: '\|' or the end is expected"),
        (
            "oort | available",
            r"position 6: the end is expected: before a '\|' stands only avail",
        ),
        ("power_of_choice", "position 1: unknown selection 'power_of_choice'"),
        ("power-of-choice(candidates=-1)", "candidates = -1 is not a number of at least 0"),
        ("power-of-choice(d=1)", "position 17: unknown argument 'd'; 'power-of-choice' takes"),
        ("oort(alpha=-1)", r"alpha = -1.0 is not in \[0, 100\]"),
        ("oort(exploration=nan)", r"exploration = nan is not in \[0, 1\]"),
        ("oort(pace_window=0)", "pace_window = 0 is not a number of at least 1"),
        ("oort(clip=0)", r"clip = 0.0 is not in \[1, 100\]"),
        ("tiers(tiers=0)", r"tiers = 0 is not in \[1, 100\]"),
        ("tiers(credits=0)", r"credits = 0 is not in \[1, 1000000\]"),
        ("tiers(tiers=2.5)", "tiers = 2.5 is not valid; 'tiers' takes tiers"),
        ("importance(floor=0)", r"floor = 0.0 is not in \[0.001, 1.0\]"),
        ("available(longest=0)", r"longest = 0 is not in \[1, 1000000\]"),
        ("round-robin(1)", "position 13: too many arguments; 'round-robin' takes no arguments"),
    ],
)
def test_wrong_specs_say_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_selection(spec, seed=0)
    assert "\n" not in str(caught.value)
