"""Specs: what is understood, and what is refused with position and alternatives."""

from __future__ import annotations

import pytest

from fl_opt.codecs import PRESETS, Codec, build_codec
from fl_opt.codecs.blocks import Uniform
from fl_opt.codecs.code import Auto, Raw, Rice
from fl_opt.codecs.quantize import Fp32, Ternary
from fl_opt.codecs.select import All, TopK
from fl_opt.errors import ConfigError


def plain(spec: str) -> Codec:
    codec = build_codec(spec)
    assert isinstance(codec, Codec)
    return codec


def test_stages_are_built_with_their_arguments() -> None:
    codec = plain("topk(density=0.05) | uniform(4, block=32, rounding=stochastic) | rice")
    assert codec.selection == TopK(0.05)
    assert codec.quantizer == Uniform(4, 32, "stochastic")
    assert codec.coder == Rice()


def test_stages_left_out_take_their_defaults() -> None:
    assert (plain("topk").selection, plain("topk").quantizer) == (TopK(), Fp32())
    codec = plain("  raw ")
    assert (codec.selection, codec.quantizer, codec.coder) == (All(), Fp32(), Raw())


def test_presets_are_names_for_specs() -> None:
    codec = plain("stc")
    assert (codec.selection, codec.quantizer) == (TopK(0.01), Ternary())
    assert str(codec) == "stc"
    for spec in PRESETS.values():
        plain(spec)


def test_auto_is_the_default_coder() -> None:
    assert plain("topk(0.1) | ternary").coder == Auto()


@pytest.mark.parametrize(
    ("spec", "position", "reason"),
    [
        ("", 1, "a stage is expected"),
        ("topk(0.01) | ternari", 14, "unknown stage 'ternari'.*ternary"),
        ("topk(0.01) ternary", 12, "'|' or the end is expected"),
        ("ternary | topk(0.01)", 11, "'topk' cannot come here"),
        ("topk | topk", 8, "'topk' cannot come here"),
        ("topk(0)", 1, r"density = 0.0 is not in \(0, 1\]"),
        ("topk(1.5) | ternary", 1, r"density = 1.5 is not in \(0, 1\]"),
        ("topk(many)", 6, "density = many is not valid; 'topk' takes density"),
        ("topk(0.1", 9, r"'\)' or ',' is expected"),
        ("topk(0.1, model, 2)", 18, "too many arguments"),
        ("topk(0.1, 2)", 11, "scope = 2 is not valid.*model or tensor"),
        ("threshold | ternary", 1, "'value' must be given; 'threshold' takes value"),
        ("eden(1.5)", 1, "bits = 1.5 is not 1, 2, ..., 6 or between 1/64 and 1"),
        ("fp8(e3m4)", 5, "format = e3m4 is not valid.*e4m3 or e5m2"),
        ("topk(k=3)", 6, "unknown argument 'k'"),
        ("topk(0.1, density=0.1)", 11, "argument 'density' is given twice"),
        ("topk(density=)", 14, "a value for 'density' is expected"),
        ("uniform(1)", 1, "bits = 1 is not between 2 and 16"),
        ("uniform(17)", 1, "bits = 17 is not between 2 and 16"),
        ("uniform(4.5)", 9, "bits = 4.5 is not valid"),
        ("uniform(4, 0)", 1, "block = 0 is not between 1"),
        ("uniform(4, 8, up)", 15, "rounding = up is not valid.*nearest or stochastic"),
        ("topk | stc", 8, "'stc' is a preset and stands alone"),
        ("topk |", 7, "a stage is expected"),
    ],
)
def test_bad_specs_name_position_and_reason(spec: str, position: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"position {position}: {reason}") as caught:
        build_codec(spec)
    assert repr(spec) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("ternary", "'ternary' needs a selection"),
        ("all | ternary | pack", "'ternary' needs a selection"),
        ("fp32 | rice", "'rice' codes positions"),
    ],
)
def test_combinations_without_meaning_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        build_codec(spec)
    assert repr(spec) in str(caught.value)
