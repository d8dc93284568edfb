"""Which part of the model a weak client trains."""

from __future__ import annotations

import numpy as np
import pytest

from fl_opt.errors import ConfigError
from fl_opt.exchange.submodels import build_submodels, cut, width_of
from fl_opt.params import ParamSpec


def spec_of(**shapes: tuple[int, ...]) -> ParamSpec:
    return ParamSpec.of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


CNN = spec_of(
    conv=(4, 1, 3, 3),
    conv_bias=(4,),
    conv_2=(6, 4, 3, 3),
    conv_2_bias=(6,),
    hidden=(10, 6 * 9),  # 3x3 pixels of 6 channels
    hidden_bias=(10,),
    output=(5, 10),
)


def units_of(spec: str, version: int, units: int, count: int) -> list[int]:
    first = build_submodels(spec).first(units, version)
    return sorted((first + i) % units for i in range(count))


@pytest.mark.parametrize("spec", ["static(0.5)", "rolling(0.5)", "rolling(0.5, shift=3)"])
@pytest.mark.parametrize("version", [0, 3, 9])
def test_a_sub_model_takes_units_with_all_that_leads_to_and_from_them(
    spec: str, version: int
) -> None:
    arrays = CNN.unflatten(np.arange(CNN.size, dtype=np.float32))
    part = cut(CNN, spec, 0.5, version)
    found = part.spec.unflatten(part.covers.positions.astype(np.float32))
    one, two, three = (units_of(spec, version, n, k) for n, k in ((4, 2), (6, 3), (10, 5)))
    pixels = [9 * channel + pixel for channel in two for pixel in range(9)]
    expected = {
        "conv": arrays["conv"][one],
        "conv_bias": arrays["conv_bias"][one],
        "conv_2": arrays["conv_2"][np.ix_(two, one)],
        "conv_2_bias": arrays["conv_2_bias"][two],
        "hidden": arrays["hidden"][np.ix_(three, pixels)],
        "hidden_bias": arrays["hidden_bias"][three],
        "output": arrays["output"][:, three],
    }
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_rolling_window_trains_every_weight_and_a_static_one_does_not() -> None:
    def covered(spec: str) -> int:
        seen = np.zeros(CNN.size, np.bool_)
        for version in range(60):
            seen |= cut(CNN, spec, 0.5, version).covers.mask
        return int(seen.sum())

    assert covered("rolling(0.5)") == CNN.size
    assert covered("static(0.5)") == cut(CNN, "static(0.5)", 0.5, 0).covers.count


def test_one_unit_stays_at_least() -> None:
    part = cut(CNN, "static(0.01)", 0.01, 0)
    assert [array.shape for array in part.spec.arrays][:2] == [(1, 1, 3, 3), (1,)]


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_share_of_weak_clients_is_kept(share: float, seed: int) -> None:
    rule = build_submodels(f"static(0.25, share={share})")
    widths = [width_of(rule, client, seed=seed) for client in range(50)]
    assert set(widths) <= {0.25, 1.0}
    assert abs(widths.count(0.25) - 50 * share) <= 2
    assert widths == [width_of(rule, client, seed=seed) for client in range(50)]
    assert 0 < width_of(rule, 2**63 + 12345, seed=seed) <= 1.0  # node ids are large


def test_who_is_weak_depends_on_the_seed() -> None:
    rule = build_submodels("rolling(0.5, share=0.5)")
    draws = {tuple(width_of(rule, c, seed=s) for c in range(20)) for s in range(8)}
    assert len(draws) > 3


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("rolling(1.0)", "width = 1.0 is not between 0 and 1"),
        ("static(0.5, share=0)", r"share = 0.0 is not in \(0, 1\]"),
        ("static(0.5, share=nan)", r"share = nan is not in \(0, 1\]"),
        ("rolling(0.5, shift=0)", "shift = 0 is not at least 1"),
        ("roling(0.5)", "position 1: unknown submodels 'roling'; known are none, static"),
    ],
)
def test_a_wrong_spec_is_refused(spec: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_submodels(spec)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (spec_of(a=(4, 3), b=(5, 7)), "array 'b' does not take 4 inputs"),
        (spec_of(a=(4, 3), scale=(5,), b=(5, 4)), r"'scale' of shape \(5,\) is no layer's"),
        (spec_of(bias=(4,), b=(5, 4)), "'bias' of shape"),
        (spec_of(only=(4, 3)), "with a hidden layer"),
        (ParamSpec.of({"a": np.zeros((4, 3), np.float32), "n": np.array(1)}), "'n' travels"),
    ],
)
def test_a_model_that_is_no_chain_is_refused(spec: ParamSpec, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        cut(spec, "static(0.5)", 0.5, 0)


@pytest.mark.parametrize("width", [0.0, 1.0, float("nan"), 7.0])
def test_a_width_that_is_none_is_refused(width: float) -> None:
    with pytest.raises(ConfigError, match="of a sub-model is not between 0 and 1"):
        cut(CNN, "static(0.5)", width, 0)
