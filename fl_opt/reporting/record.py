"""The record of a run on disk: one line a round, and a summary."""

from __future__ import annotations

import json
import logging
import secrets
import sys
from dataclasses import replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Final, Literal

from fl_opt.config import Settings
from fl_opt.errors import ConfigError, DataError
from fl_opt.profiling.rounds import RoundRecord
from fl_opt.reporting.rounds_file import (
    ROUNDS_FILE,
    cut_rounds,
    read_record_file,
    read_rounds,
)
from fl_opt.reporting.strict_json import to_json, write_json
from fl_opt.reporting.summary import RunInfo, RunSummary, Status
from fl_opt.reporting.totals import summarize

logger = logging.getLogger(__name__)

SUMMARY_FILE: Final = "summary.json"


class RunRecorder:
    """A :class:`~fl_opt.profiling.rounds.RoundObserver` that writes the record of a run.

    ``<output.folder>/<output.name>/`` gets ``rounds.jsonl``, one JSON object a line as soon as
    a round is complete, and ``summary.json``, which says ``"status": "running"`` until the run
    has ended. Without a name the folder is called after the time of the start.

    A run that was cut short can go on in the same record: ``resume=True``, and
    :meth:`resume_from` before the run starts. Rounds that were done but lost, because the
    state they led to was not saved, are taken out: their bytes and their time are counted
    nowhere. That no two runs go on in one record is up to whoever resumes: the lock of
    :class:`~fl_opt.checkpoint.Checkpoints` sees to it.

    Parameters
    ----------
    settings : Settings
    engine : str
        Name of the engine that the run uses.
    resume : bool
        Allow for a record in the folder, to go on in it; where there is none, start one.

    Attributes
    ----------
    folder : Path
        Of this record; it is made when the run starts.
    records : list of RoundRecord
        All rounds so far, as far as they could be written, read from the file: a long run
        would fill the memory with them.

    Raises
    ------
    ConfigError
        If the name is not a plain folder name, or the folder holds a record already and it is
        not to be resumed.
    """

    def __init__(self, settings: Settings, *, engine: str, resume: bool = False) -> None:
        self.folder = _choose_folder(settings, resume)
        self._last = 0  # round that was recorded
        self._info = RunInfo.collect(settings, engine, self.folder)
        self._rounds_planned = settings.num_server_rounds
        self._status: Status = "running"
        self._error: str | None = None
        self._file: FileIO | None = None
        self._size = 0  # bytes of the file that are whole lines
        self._unwritten = b""
        self._resume = resume
        self._mode: Literal["x", "a"] = "x"

    @property
    def records(self) -> list[RoundRecord]:
        """All rounds so far."""
        path = self.folder / ROUNDS_FILE
        return read_rounds(path) if path.exists() else []

    def resume_from(self, server_round: int) -> None:
        """Take over the record's rounds up to ``server_round`` and remove all later ones.

        A last line that is not complete is removed too. The record keeps the time of its first
        start. Without a record there is nothing to take over. To be called before
        :meth:`on_start`, which otherwise refuses a record that is there.

        Parameters
        ----------
        server_round : int
            The last round whose outcome was saved; -1: none, not even the initial evaluation.

        Raises
        ------
        DataError
            If the record is broken; file and line are named, and nothing is removed.
        RuntimeError
            If the recorder was not made with ``resume=True``.
        """
        if not self._resume:
            raise RuntimeError("the recorder was made for a new run")
        path = self.folder / ROUNDS_FILE
        if not path.exists():
            return
        started = _read_start(self.folder / SUMMARY_FILE)
        kept = cut_rounds(path, server_round)
        self._last = kept[-1].server_round if kept else 0
        self._info = replace(self._info, started=started or self._info.started)
        self._mode = "a"

    def on_start(self, num_rounds: int) -> None:
        """Make the folder and say that the run is under way."""
        self._rounds_planned = num_rounds
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._file = FileIO(self.folder / ROUNDS_FILE, self._mode)
        except FileExistsError:
            raise _occupied(self.folder) from None
        self._size = (self.folder / ROUNDS_FILE).stat().st_size
        self._write_summary()

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        """Do nothing: replies are part of their round's record."""

    def on_round(self, record: RoundRecord) -> None:
        """Append the record of a round; where that fails, try again with the next one."""
        self._last = record.server_round
        self._unwritten += to_json(record.to_dict()).encode() + b"\n"
        try:
            self._write_rounds()
        except OSError as error:
            logger.warning(
                "round %d is not yet in the record: %s: %s",
                record.server_round,
                self.folder / ROUNDS_FILE,
                error.strerror,
            )

    def on_end(self) -> None:
        """Write the summary; a run that ends before its last round has failed."""
        if self._file is None:
            return
        try:
            self._write_rounds()
        finally:
            self._file.close()
            self._file = None
        if self._last >= self._rounds_planned:
            self._status = "completed"
        else:
            self._status, self._error = _reason(sys.exception())
        self._write_summary()

    def summary(self) -> RunSummary:
        """Sum up the rounds so far."""
        return summarize(
            self._info,
            self.records,
            rounds_planned=self._rounds_planned,
            status=self._status,
            error=self._error,
        )

    def _write_rounds(self) -> None:
        """Append what has not been written; all of it or nothing."""
        if self._file is None:
            return
        left = memoryview(self._unwritten)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.seek(self._size)
            self._file.truncate()
            raise
        self._size += len(self._unwritten)
        self._unwritten = b""

    def _write_summary(self) -> None:
        write_json(self.folder / SUMMARY_FILE, self.summary().to_dict())


def _choose_folder(settings: Settings, resume: bool) -> Path:
    output = settings.output
    parent = Path(output.folder).expanduser()
    if not output.name:
        # The suffix keeps apart runs that start in the same second.
        now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        return parent / f"{now}-{secrets.token_hex(2)}"
    if output.name != Path(output.name).name or output.name == "..":
        raise ConfigError(
            f"setting 'output.name' = {output.name!r}: should be a plain folder name"
        )
    folder = parent / output.name
    if not resume and any((folder / name).exists() for name in (ROUNDS_FILE, SUMMARY_FILE)):
        raise _occupied(folder)
    return folder


def _read_start(path: Path) -> str | None:
    """Return when a run started; None if it was killed before it could say so."""
    if not path.exists():
        return None
    try:
        return str(json.loads(read_record_file(path))["started"])
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{path}: not a run summary: no time of the start") from None


def _occupied(folder: Path) -> ConfigError:
    return ConfigError(
        f"setting 'output.name' = {folder.name!r}: {folder} holds a run record already; "
        "choose another name or remove it"
    )


def _reason(error: BaseException | None) -> tuple[Status, str | None]:
    """Status and error of a run that ended early, from the exception that is under way."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", None
    if error is None:
        return "failed", None
    return "failed", " ".join(f"{type(error).__name__}: {error}".split())
