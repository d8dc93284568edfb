"""Reads the record of a run back, also while the run is going on or after it was killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fl_opt.config import Settings, load_settings
from fl_opt.errors import ConfigError, DataError
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting.record import ROUNDS_FILE, SUMMARY_FILE
from fl_opt.reporting.summary import RunInfo, RunSummary, Status, summarize

_ROUND = TypeAdapter(RoundRecord)


@dataclass(frozen=True)
class Run:
    """The record of a run: settings, rounds in order, and the summary computed from them."""

    settings: Settings
    records: list[RoundRecord]
    summary: RunSummary


class _Header(BaseModel):
    """What cannot be computed from the rounds."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    engine: str
    started: str
    versions: dict[str, str]
    settings: dict[str, bool | int | float | str]
    status: Status
    error: str | None
    rounds_planned: int = Field(ge=0)


def load_run(folder: Path | str) -> Run:
    """Read the record of a run.

    Parameters
    ----------
    folder : Path or str
        The run's own folder, with ``rounds.jsonl`` and ``summary.json``.

    Returns
    -------
    Run
        A last line that is not complete yet is left out.

    Raises
    ------
    DataError
        If the folder holds no record or a broken one; the file and line are named.
    """
    folder = Path(folder)
    path = folder / SUMMARY_FILE
    header = _read_header(path)
    try:
        settings = load_settings(header.settings)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None
    records = _read_rounds(folder / ROUNDS_FILE)
    info = RunInfo(settings, header.engine, folder, header.started, header.versions)
    summary = summarize(
        info,
        records,
        rounds_planned=header.rounds_planned,
        status=header.status,
        error=header.error,
    )
    return Run(settings, records, summary)


def _read_header(path: Path) -> _Header:
    try:
        return _Header.model_validate_json(_read(path))
    except ValidationError as error:
        raise DataError(f"{path}: not a run summary: {_first(error)}") from None


def _read_rounds(path: Path) -> list[RoundRecord]:
    *lines, _unfinished = _read(path).split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_ROUND.validate_python(_to_fields(json.loads(line))))
        except ValidationError as error:
            raise DataError(f"{path}, line {number}: {_first(error)}") from None
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not a round record: {error}") from None
    return records


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: not a readable run record: {error.strerror}") from None


def _to_fields(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a line should be one JSON object")
    fields = {key.replace("-", "_"): item for key, item in value.items()}
    if isinstance(fields.get("clients"), list):
        fields["clients"] = [_to_fields(client) for client in fields["clients"]]
    return fields


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part).replace("_", "-") for part in first["loc"])
    return f"{key}: {first['msg']}" if key else first["msg"]
