from __future__ import annotations

import pytest
import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.profiling.memory import resident_bytes
from fl_opt.training.batch_profile import profile_batch_sizes
from fl_opt.training.gradient_noise import gradient_noise_scale
from tests.training.tasks import linear_model, separable


def wide_model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 20_000), nn.ReLU(), nn.Linear(20_000, 3))


@pytest.mark.parametrize("micro", [0, 8])
def test_rows_are_measured_and_consistent(micro: int) -> None:
    model, examples = wide_model(), separable(40)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    settings = TrainSettings(batch_size="auto", precision="auto", micro_batch_size=micro)
    profile = profile_batch_sizes(model, examples, settings, [64, 8, 64], seed=3)

    assert [row.batch_size for row in profile.rows] == [8, 64]
    assert profile.num_examples == 40
    small, large = profile.rows
    if micro:
        assert large.training_bytes == small.training_bytes
    else:  # what a hidden activation takes, for 56 more examples
        assert large.training_bytes - small.training_bytes > 56 * 20_000 * 4
    assert 0.5 * resident_bytes() < small.peak_bytes < 2 * resident_bytes()
    assert min(row.time_needed for row in profile.rows) == 1.0
    scale = profile.noise_scale_after
    for row in profile.rows:
        assert row.examples_needed == pytest.approx(1 + row.batch_size / scale)
    ratio = (large.examples_needed / large.samples_per_second) / (
        small.examples_needed / small.samples_per_second
    )
    assert large.time_needed / small.time_needed == pytest.approx(ratio)
    assert profile.noise_scale_before == gradient_noise_scale(model, examples, seed=3)
    after = nn.utils.parameters_to_vector(model.parameters())
    assert torch.equal(after, before)


def test_local_training_raises_the_noise_scale() -> None:
    settings = TrainSettings(local_epochs=20, learning_rate=0.5)
    profile = profile_batch_sizes(linear_model(), separable(200), settings, [32], seed=1)
    assert profile.noise_scale_after > 2 * profile.noise_scale_before
