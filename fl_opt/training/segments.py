"""Which modules to checkpoint, where the setting leaves it open."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from fl_opt.training.checkpointing import is_plain_sequence

_FEWEST_PARTS = 3


def segment_choices(model: nn.Module) -> list[str]:
    """Return ways to checkpoint a model, as values of ``train.checkpoint-modules``.

    Which one takes least memory depends on what its layers keep: try them. Layers that
    keep little beside their input are worth grouping, about ``sqrt(n)`` to a group; blocks
    that keep much inside are worth it one by one.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    list of str
        Without duplicates. For the container with the most parts (a ``Sequential`` or a
        ``ModuleList``): each part, and, where parts simply follow each other, runs of them.
        Also the parts of the model itself. Empty for a model of a single layer.
    """
    choices: dict[str, None] = {}
    for name, module in _containers(model):
        prefix = f"{name}." if name else ""
        if is_plain_sequence(module):
            count = len(list(module.children()))
            for runs in {round(math.sqrt(count)), round(math.sqrt(2 * count))}:
                if 2 <= runs <= count:
                    choices[f"{name}:{runs}"] = None
        choices[", ".join(f"{prefix}{child}" for child, _ in module.named_children())] = None
    return list(choices)


def _containers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    kinds = (nn.Sequential, nn.ModuleList)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, kinds) and len(list(module.children())) >= _FEWEST_PARTS
    ]
    if found:
        yield max(found, key=lambda pair: len(list(pair[1].children())))
    if len(list(model.children())) > 1:
        yield "", model
