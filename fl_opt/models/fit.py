"""The check that a model suits the data."""

from __future__ import annotations

from fl_opt.data import TaskInfo, TaskKind
from fl_opt.errors import ModelError


def require_kind(model: str, info: TaskInfo, *kinds: TaskKind) -> None:
    """Raise ModelError if the data is of none of these kinds."""
    if info.kind not in kinds:
        raise ModelError(f"model {model!r} is for {' or '.join(kinds)} data, not {info.kind}")
