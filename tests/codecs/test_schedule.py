"""Densities that fall over the first rounds."""

from __future__ import annotations

import pytest

from fl_opt.codecs import Codec, build_codec
from fl_opt.codecs.schedule import WarmUp
from fl_opt.codecs.select import TopK
from fl_opt.errors import ConfigError


def densities(schedule: WarmUp, spec: str, rounds: int) -> list[float]:
    found = []
    for server_round in range(1, rounds + 1):
        codec = build_codec(schedule.spec_at(spec, server_round))
        assert isinstance(codec, Codec)
        assert isinstance(codec.selection, TopK)
        found.append(codec.selection.density)
    return found


def test_densities_of_deep_gradient_compression() -> None:
    found = densities(WarmUp(), "topk(0.001) | ternary", 7)
    assert found == [0.25, 0.0625, 0.015625, 0.004, 0.001, 0.001, 0.001]


def test_each_density_holds_for_its_rounds_and_never_falls_below_the_specs_own() -> None:
    found = densities(WarmUp(rounds_each=2), "topk(0.02) | ternary", 6)
    assert found == [0.25, 0.25, 0.0625, 0.0625, 0.02, 0.02]


def test_everything_else_stays_as_it_is() -> None:
    spec = "topk(0.01, tensor) | uniform(4, 64, stochastic) | rice"
    early, final = build_codec(WarmUp().spec_at(spec, 1)), build_codec(spec)
    assert isinstance(early, Codec)
    assert isinstance(final, Codec)
    assert early.selection == TopK(0.25, "tensor")
    assert (early.quantizer, early.coder) == (final.quantizer, final.coder)
    assert WarmUp().spec_at(spec, 99) == spec


def test_presets_are_understood() -> None:
    assert WarmUp().spec_at("stc", 1).startswith("topk(density=0.25")
    assert WarmUp().spec_at("stc", 9) == "stc"


@pytest.mark.parametrize("spec", ["int8", "threshold(1) | ternary"])
def test_specs_without_a_density_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="has no density"):
        WarmUp().spec_at(spec, 1)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="rounds_each = 0"):
        WarmUp(rounds_each=0)
    with pytest.raises(ConfigError, match=r"density = 1\.5 is not in"):
        WarmUp((1.5,))
