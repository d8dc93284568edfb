"""Reads the record of a run back, also while the run is going on or after it was killed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_opt.config import Settings, load_settings
from fl_opt.errors import ConfigError, DataError
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting.record import SUMMARY_FILE
from fl_opt.reporting.rounds_file import (
    ROUNDS_FILE,
    first_mistake,
    read_record_file,
    read_rounds,
)
from fl_opt.reporting.summary import RunInfo, RunSummary, Status
from fl_opt.reporting.totals import summarize


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
    records = read_rounds(folder / ROUNDS_FILE)
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
        return _Header.model_validate_json(read_record_file(path))
    except ValidationError as error:
        raise DataError(f"{path}: not a run summary: {first_mistake(error)}") from None
