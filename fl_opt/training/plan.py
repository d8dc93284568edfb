"""How a client trains on this machine: what the settings leave to be found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fl_opt.config import TrainSettings
from fl_opt.errors import ConfigError

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Plan:
    """Sizes and kinds that are left to choose where settings say ``auto``.

    Attributes
    ----------
    batch_size : int
        Examples of an optimizer step.
    micro_batch_size : int
        Examples of a forward and backward pass, at most ``batch_size``.
    precision : {"fp32", "bf16", "fp16"}
        Of matrix products and convolutions; weights are float32.
    checkpoint_modules : str
        Modules whose activations are computed again: comma-separated patterns of names.
    """

    batch_size: int
    micro_batch_size: int
    precision: Precision = "fp32"
    checkpoint_modules: str = ""


def fixed_plan(settings: TrainSettings) -> Plan:
    """Return the plan of settings that leave nothing open.

    Raises
    ------
    ConfigError
        If something is ``auto``.
    """
    if settings.batch_size == "auto" or settings.precision == "auto":
        raise ConfigError("batch-size or precision is 'auto': it has to be found first")
    size = settings.batch_size
    micro = min(settings.micro_batch_size or size, size)
    patterns = "" if settings.checkpoint_modules == "auto" else settings.checkpoint_modules
    return Plan(size, micro, settings.precision, patterns)
