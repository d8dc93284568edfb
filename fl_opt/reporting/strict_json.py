"""JSON that any parser reads: no NaN, no infinity, no half-written file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Serialize plain values; a number that is not finite becomes null."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent)
    except ValueError:  # it is rare, and to look for it takes longer than all the rest
        return json.dumps(_finite(value), allow_nan=False, indent=indent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file at once: a reader sees the old content or the new, never a part."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(to_json(value, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
