"""The file with the rounds of a run: one JSON object a line, in order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from fl_opt.errors import DataError
from fl_opt.profiling.rounds import RoundRecord

ROUNDS_FILE: Final = "rounds.jsonl"

_ROUND = TypeAdapter(RoundRecord)


def read_rounds(path: Path) -> list[RoundRecord]:
    """Return the rounds in a file, without a last line that is not complete.

    Raises
    ------
    DataError
        If the file cannot be read or holds anything else; file and line are named.
    """
    return [record for record, _ in _parse(path)]


def cut_rounds(path: Path, server_round: int) -> list[RoundRecord]:
    """Cut a file back to the rounds up to ``server_round``, and return those.

    The file is shortened in one step: killed at any moment, it holds all rounds or those.

    Raises
    ------
    DataError
        If the file cannot be read or changed, or a line up to there is broken, which is named;
        nothing is cut then.
    """
    kept, size = [], 0
    for record, end in _parse(path):
        if record.server_round > server_round:
            break
        kept.append(record)
        size = end
    try:
        os.truncate(path, size)
    except OSError as error:
        raise DataError(f"{path}: cannot be cut back: {error.strerror}") from None
    return kept


def first_mistake(error: ValidationError) -> str:
    """Describe what is wrong with a value in one line, by its key."""
    first = error.errors()[0]
    key = ".".join(str(part).replace("_", "-") for part in first["loc"])
    return f"{key}: {first['msg']}" if key else first["msg"]


def read_record_file(path: Path) -> bytes:
    """Return the content of a file that belongs to a record."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: not a readable run record: {error.strerror}") from None


def _parse(path: Path) -> Iterator[tuple[RoundRecord, int]]:
    """Yield each round, and the position behind its line."""
    *lines, _unfinished = read_record_file(path).split(b"\n")
    end = 0
    for number, line in enumerate(lines, start=1):
        end += len(line) + 1
        try:
            record = _ROUND.validate_python(_to_fields(json.loads(line)))
        except ValidationError as error:
            raise DataError(f"{path}, line {number}: {first_mistake(error)}") from None
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not a round record: {error}") from None
        yield record, end


def _to_fields(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a line should be one JSON object")
    fields = {key.replace("-", "_"): item for key, item in value.items()}
    for name in ("clients", "spans"):
        if isinstance(fields.get(name), list):
            fields[name] = [_to_fields(item) for item in fields[name]]
    return fields
