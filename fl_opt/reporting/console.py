"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fl_opt.config import Settings
from fl_opt.profiling.rounds import RoundObserver, RoundRecord
from fl_opt.reporting.units import format_bytes, format_seconds


def console_observer(settings: Settings, console: Console | None = None) -> RoundObserver:
    """Return the observer that suits the console.

    Parameters
    ----------
    settings : Settings
        Of the run, for the first line.
    console : rich.console.Console, optional
        Default: standard error, so that standard output is left to results.

    Returns
    -------
    RoundObserver
        A :class:`ProgressBar` on a terminal, else a :class:`PlainLog`.
    """
    console = console or Console(stderr=True)
    kind = ProgressBar if console.is_terminal else PlainLog
    return kind(settings, console)


class PlainLog:
    """Writes one line a round.

    Parameters
    ----------
    settings : Settings
    console : rich.console.Console
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._num_rounds = 0

    def on_start(self, num_rounds: int) -> None:
        """Say what is run."""
        self._num_rounds = num_rounds
        self._print(headline(self._settings, num_rounds))

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        """Do nothing: lines are for whole rounds."""

    def on_round(self, record: RoundRecord) -> None:
        """Write the round's line."""
        self._print(round_line(record, self._num_rounds))

    def on_end(self) -> None:
        """Do nothing: the last line is written."""

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class ProgressBar:
    """Shows rounds, replies, accuracy, traffic and the time left in one moving line.

    Parameters
    ----------
    settings : Settings
    console : rich.console.Console
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._bytes = 0
        self._accuracy = ""
        self._task = TaskID(0)
        self._progress = Progress(
            TextColumn("round {task.fields[done]}/{task.total:.0f}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[accuracy]}"),
            TextColumn("{task.fields[sent]}"),
            TextColumn("eta"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[replies]}", style="dim"),
            console=console,
        )

    def on_start(self, num_rounds: int) -> None:
        """Draw the empty bar."""
        self._progress.console.print(
            headline(self._settings, num_rounds), markup=False, highlight=False
        )
        self._task = self._progress.add_task(
            "", total=num_rounds, done=0, accuracy="", sent="", replies=""
        )
        self._progress.start()

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        """Move on by one client's share of the round."""
        self._progress.update(
            self._task,
            completed=server_round - 1 + received / max(expected, 1),
            replies=f"{received}/{expected} replies",
        )

    def on_round(self, record: RoundRecord) -> None:
        """Show the round's results."""
        self._bytes += record.bytes_up + record.bytes_down
        score = _score(record)
        if score is not None:
            self._accuracy = f"accuracy {score:.4f}"
        self._progress.update(
            self._task,
            completed=record.server_round,
            done=record.server_round,
            accuracy=self._accuracy,
            sent=f"{format_bytes(self._bytes)} sent",
            replies="",
        )

    def on_end(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


def headline(settings: Settings, num_rounds: int) -> str:
    """Say in one line what is run."""
    profile = f"{settings.profile}: " if settings.as_profile else ""
    return (
        f"{settings.dataset} / {settings.model} / {settings.strategy}, {num_rounds} rounds, "
        f"{profile}up {settings.uplink.codec}, "
        f"down {settings.downlink.mode} {settings.downlink.codec}"
    )


def round_line(record: RoundRecord, num_rounds: int) -> str:
    """Put a round's results in one line; what was not measured is left out."""
    width = len(str(num_rounds))
    loss = record.federated_loss if record.loss is None else record.loss
    score = _score(record)
    words = [
        f"round {record.server_round:{width}}/{num_rounds}",
        "" if record.train_loss is None else f"train loss {record.train_loss:.4f}",
        "" if loss is None else f"loss {loss:.4f}",
        "" if score is None else f"accuracy {score:.4f}",
        f"up {format_bytes(record.bytes_up)}",
        f"down {format_bytes(record.bytes_down)}",
        format_seconds(record.wall_seconds),
        (
            ""
            if record.virtual_seconds is None
            else f"{format_seconds(record.virtual_seconds)} virtual"
        ),
        f"{record.failures} failed" if record.failures else "",
    ]
    return "  ".join(word for word in words if word)


def _score(record: RoundRecord) -> float | None:
    return record.federated_accuracy if record.accuracy is None else record.accuracy
