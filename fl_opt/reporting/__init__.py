"""Run records, summaries, and what a person sees of them on the terminal."""

from fl_opt.reporting.console import PlainLog, ProgressBar, console_observer
from fl_opt.reporting.reader import Run, load_run
from fl_opt.reporting.record import RunRecorder
from fl_opt.reporting.summary import (
    Communication,
    Convergence,
    Memory,
    RoundTime,
    RunInfo,
    RunSummary,
    Volume,
)
from fl_opt.reporting.tables import print_summary, summary_table
from fl_opt.reporting.totals import summarize
from fl_opt.reporting.units import format_bytes, format_ratio, format_seconds

__all__ = [
    "Communication",
    "Convergence",
    "Memory",
    "PlainLog",
    "ProgressBar",
    "RoundTime",
    "Run",
    "RunInfo",
    "RunRecorder",
    "RunSummary",
    "Volume",
    "console_observer",
    "format_bytes",
    "format_ratio",
    "format_seconds",
    "load_run",
    "print_summary",
    "summarize",
    "summary_table",
]
