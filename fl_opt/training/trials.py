"""What trials of a model on this machine are remembered by."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fl_opt.config import TrainSettings
from fl_opt.data import AnyExamples


def trial_key(
    model: nn.Module, examples: AnyExamples, settings: TrainSettings
) -> dict[str, Any]:
    """Return what the result of a trial depends on, as plain values.

    Parameters
    ----------
    model : torch.nn.Module
        Its structure, and shapes and dtypes of its parameters and buffers; no values.
    examples : Examples or StreamedExamples
        Shapes and dtypes of one example; not how many there are.
    settings : TrainSettings
        What changes the time or memory of a step.

    Returns
    -------
    dict
        Also the device's name, the number of threads and torch's version.
    """
    one = examples.batch(0, 1)
    inputs, targets = one.inputs, one.targets
    step = settings.model_dump(
        include={"optimizer", "channels_last", "compile", "precision", "checkpoint_modules"}
    )
    return {
        "device": device_name(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "model": _digest(model),
        "inputs": [str(inputs.dtype), *inputs.shape[1:]],
        "targets": [str(targets.dtype), *targets.shape[1:]],
        "momentum": bool(settings.momentum),
        "clips": bool(settings.clip_norm),
        "proximal": bool(settings.proximal_mu),
        **step,
    }


def device_name(device: torch.device) -> str:
    """Return what a device calls itself, such as the model of a processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else device.type


@lru_cache
def _processor() -> str:
    """Return the processor's model; not the machine's name, as machines may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _digest(model: nn.Module) -> str:
    state = [*model.named_parameters(), *model.named_buffers()]
    shapes = [
        (name, tuple(tensor.shape), str(tensor.dtype), tensor.requires_grad)
        for name, tensor in state
    ]
    return hashlib.sha256(f"{model!r} {shapes!r}".encode()).hexdigest()[:16]
