"""Activations that are computed again in the backward pass instead of kept.

A module that is checkpointed keeps its inputs only (Chen et al. 2016, "Training Deep Nets
with Sublinear Memory Cost"): memory falls, and each such module runs forward twice. The
results are the same: random numbers are drawn again from the same state, and buffers, such as
the statistics of batch normalisation, change once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fl_opt.errors import ConfigError

_SHOWN_NAMES = 8


@contextmanager
def checkpointed(model: nn.Module, patterns: str) -> Iterator[None]:
    """Have modules compute their activations again in the backward pass, while in the context.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place, and put back at the end. Backward passes belong into the context.
    patterns : str
        Comma-separated patterns of names as ``model.named_modules()`` gives them, with
        ``*``, ``?`` and ``[...]``; ``*`` matches dots too. Of modules inside each other the
        outermost counts; of a ``ModuleList``, which is never called itself, the members. Such
        a pattern may end in ``:k``: a ``Sequential`` is then divided into ``k`` runs of
        layers, each of which keeps its input only; ``:k`` alone means the model itself.
        Empty: nothing is changed.

    Raises
    ------
    ConfigError
        If a pattern matches no module, or is not well formed; the model is as it was.
    """
    changes = [c for pattern in split_patterns(patterns) for c in _changes(model, pattern)]
    with ExitStack() as stack:
        for module, forward in _outermost(changes):
            stack.enter_context(_forward_of(module, forward))
        yield


def split_patterns(patterns: str) -> list[str]:
    """Return the patterns of a comma-separated list, in order."""
    return [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]


def is_plain_sequence(module: nn.Module) -> bool:
    """Whether a module applies its children one after the other, and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


_Forward = Callable[..., Any]
_Change = tuple[str, nn.Module, _Forward]


def _changes(model: nn.Module, pattern: str) -> list[_Change]:
    """Return the modules that a pattern means, and what their ``forward`` becomes."""
    glob, colon, count = pattern.rpartition(":")
    if not colon:
        glob = pattern
    found = [
        (name, module)
        for name, module in model.named_modules()
        if fnmatchcase(name, glob) and (name or not glob)
    ]
    if not found:
        raise ConfigError(
            f"train.checkpoint-modules: {pattern!r} matches no module; "
            f"there are {_names(model)}"
        )
    if not colon:
        members = [member for name, module in found for member in _members(name, module)]
        return [
            (name, module, _recomputing(module, module.forward)) for name, module in members
        ]
    return [(name, module, _divided(name, module, pattern, count)) for name, module in found]


def _divided(name: str, module: nn.Module, pattern: str, count: str) -> _Forward:
    """Return the forward of a ``Sequential`` in so many runs of layers."""
    what = f"train.checkpoint-modules: {pattern!r} divides {name or 'the model'!r}"
    if not is_plain_sequence(module):
        raise ConfigError(
            f"{what}, a {type(module).__name__}; only a torch.nn.Sequential can be divided"
        )
    layers = list(module.children())
    if not (count.isdecimal() and 2 <= int(count) <= len(layers)):
        raise ConfigError(
            f"{what} into {count!r} runs of layers; it can be divided into 2 to {len(layers)}"
        )
    return _in_runs(layers, int(count))


def _members(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, nn.ModuleList | nn.ModuleDict):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _members(f"{name}.{child_name}".lstrip("."), child)


def _names(model: nn.Module) -> str:
    names = [name for name, _ in model.named_modules() if name]
    shown = ", ".join(names[:_SHOWN_NAMES]) or "none with a name"
    return shown + (f" and {len(names) - _SHOWN_NAMES} more" if names[_SHOWN_NAMES:] else "")


def _outermost(changes: Iterable[_Change]) -> list[tuple[nn.Module, _Forward]]:
    """Leave out what is inside another chosen module: it is computed again with that one."""
    chosen = {name: (module, forward) for name, module, forward in changes}

    def is_inside(name: str) -> bool:
        parents = name.split(".")
        return bool(name) and any(
            ".".join(parents[:depth]) in chosen for depth in range(len(parents))
        )

    return [change for name, change in chosen.items() if not is_inside(name)]


@contextmanager
def _forward_of(module: nn.Module, forward: _Forward) -> Iterator[None]:
    """Replace the ``forward`` of one object; its class keeps its own."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _recomputing(part: nn.Module, forward: _Forward) -> _Forward:
    again: _Forward = functools.partial(
        checkpoint, forward, use_reentrant=False, preserve_rng_state=True
    )

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        if next(part.buffers(), None) is not None:  # else simpler, for torch.compile's sake
            return again(*args, context_fn=functools.partial(_contexts, part), **kwargs)
        return again(*args, **kwargs)

    return call


def _in_runs(layers: list[nn.Module], count: int) -> _Forward:
    """Return a forward that keeps the inputs of ``count`` runs of layers.

    The last run is not computed again: its activations would be needed at once.
    """
    bounds = [round(len(layers) * run / count) for run in range(count + 1)]
    runs = [nn.Sequential(*layers[a:b]) for a, b in itertools.pairwise(bounds)]
    calls = [_recomputing(run, run.forward) for run in runs[:-1]] + [runs[-1].forward]

    def forward(inputs: Any) -> Any:
        for call in calls:
            inputs = call(inputs)
        return inputs

    return forward


class _Buffers:
    """The buffers of a part as they were before its forward pass, for when it runs again.

    Running statistics are then counted once, and what is computed from such state, as by
    spectral normalisation, comes out the same.
    """

    def __init__(self, part: nn.Module) -> None:
        self._part = part
        self._before: list[tuple[nn.Module, dict[str, torch.Tensor | None]]] = []

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Copy the buffers; the context is the forward pass."""
        self._before = [
            (module, _copies(module)) for module in self._part.modules() if module._buffers
        ]
        yield

    @contextmanager
    def use(self) -> Iterator[None]:
        """Have the part work on copies, while in the context."""
        now = [(module, dict(module._buffers)) for module, _ in self._before]
        for module, buffers in self._before:
            module._buffers.update({name: _copy(buffer) for name, buffer in buffers.items()})
        try:
            yield
        finally:
            for module, buffers in now:
                module._buffers.update(buffers)


def _contexts(
    part: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    buffers = _Buffers(part)
    return buffers.keep(), buffers.use()


def _copies(module: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: _copy(buffer) for name, buffer in module._buffers.items()}


def _copy(buffer: torch.Tensor | None) -> torch.Tensor | None:
    return None if buffer is None else buffer.detach().clone()
