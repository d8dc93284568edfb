from __future__ import annotations

import pytest
import torch

from fl_opt.errors import ConfigError
from fl_opt.training import find_device


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cpu:x", "cuda:99"])
def test_a_device_that_cannot_be_used_is_one_line(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"train.device = '{name}' cannot be used: "
    ) as caught:
        find_device(name)
    assert "\n" not in str(caught.value)
