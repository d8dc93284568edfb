"""The summary of a run as tables that fit 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fl_opt.reporting.console import headline
from fl_opt.reporting.summary import LAST_ROUNDS, RunSummary, Volume
from fl_opt.reporting.units import format_bytes, format_ratio, format_seconds

_VIRTUAL_PARTS = ("download", "compute", "upload")
"""Parts of a round that pass on the virtual clock, not in real time."""


def print_summary(summary: RunSummary, console: Console | None = None) -> None:
    """Print the summary of a run; by default to standard output."""
    (console or Console()).print(summary_table(summary))


def summary_table(summary: RunSummary) -> RenderableType:
    """Lay out the four metrics of a run and its compression against float32.

    Parameters
    ----------
    summary : RunSummary

    Returns
    -------
    rich renderable
        For :meth:`rich.console.Console.print`.
    """
    return Group(
        Text(f"\n{headline(summary.info.settings, summary.rounds_planned)}", style="bold"),
        _metrics(summary),
        _traffic(summary),
        Text(f"record: {summary.info.folder}", style="dim", overflow="fold"),
    )


def _metrics(summary: RunSummary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in (
        ("status", _status(summary)),
        ("time per round", _time(summary)),
        ("  of which", _parts(summary)),
        ("communication", _communication(summary)),
        ("codecs chosen", _codecs(summary)),
        ("exchange", _exchange(summary)),
        ("peak memory", _memory(summary)),
        ("convergence", _convergence(summary)),
    ):
        if text:
            table.add_row(name, Text(text))
    return table


def _status(summary: RunSummary) -> str:
    text = (
        f"{summary.status}, {summary.rounds_done} of {summary.rounds_planned} rounds, "
        f"{summary.participants} updates used, {summary.failures} failed"
    )
    return f"{text}: {summary.error}" if summary.error else text


def _time(summary: RunSummary) -> str:
    time = summary.time
    if time.wall_mean is None or time.wall_median is None:
        return "no round was completed"
    text = _spread(time.wall_mean, time.wall_median, time.wall_total)
    if time.virtual_mean is None or time.virtual_median is None or time.virtual_total is None:
        return text
    virtual = _spread(time.virtual_mean, time.virtual_median, time.virtual_total)
    return f"{text}\nvirtual: {virtual}"


def _spread(mean: float, median: float, total: float) -> str:
    return (
        f"mean {format_seconds(mean)}, median {format_seconds(median)}, "
        f"in total {format_seconds(total)}"
    )


def _parts(summary: RunSummary) -> str:
    def line(virtual: bool) -> str:
        return ", ".join(
            f"{name} {format_seconds(seconds)}"
            for name, seconds in summary.time.parts.items()
            if (name in _VIRTUAL_PARTS) is virtual
        )

    virtual = line(virtual=True)
    return line(virtual=False) + (f"\nvirtual: {virtual}" if virtual else "")


def _communication(summary: RunSummary) -> str:
    total = summary.communication.total
    if total.percent_saved is None:
        return "nothing was sent"
    return (
        f"{format_bytes(total.payload_bytes)} sent, {total.percent_saved:.1f}% less than "
        f"float32 ({format_ratio(total.compression_ratio)})"
    )


def _exchange(summary: RunSummary) -> str:
    """Say what did not go straight; nothing if all did."""
    exchange = summary.exchange
    events = (
        (exchange.served_again, "clients served again"),
        (exchange.returned, "updates taken back"),
        (exchange.stale, "late ones used"),
        (exchange.ignored, "ignored"),
        (exchange.lost, "residuals lost"),
    )
    return ", ".join(f"{count} {what}" for count, what in events if count)


def _codecs(summary: RunSummary) -> str:
    """Say what clients were told to send, and were sent; nothing if all had the same."""

    def line(direction: str, chosen: dict[str, int]) -> str:
        total = sum(chosen.values())
        words = [f"{codec} {count / total:.0%}" for codec, count in chosen.items()]
        return f"{direction}: {', '.join(words)}" if words else ""

    exchange = summary.exchange
    lines = (line("up", exchange.codecs_up), line("down", exchange.codecs_down))
    return "\n".join(filter(None, lines))


def _memory(summary: RunSummary) -> str:
    def peak(count: int | None) -> str:
        return "not measured" if count is None else format_bytes(count)

    memory = summary.memory
    return f"server {peak(memory.server_peak_bytes)}, clients {peak(memory.client_peak_bytes)}"


def _convergence(summary: RunSummary) -> str:
    found = summary.convergence
    if found.final_accuracy is None:
        return "accuracy was not evaluated"
    reached = (
        f"not reached in {summary.rounds_done} rounds"
        if found.rounds_to_target is None
        else f"reached in round {found.rounds_to_target}"
    )
    return (
        f"{found.evaluated} accuracy {found.final_accuracy:.4f}, "
        f"mean of last {LAST_ROUNDS} rounds {found.last_accuracy:.4f}\n"
        f"best {found.best_accuracy:.4f} in round {found.best_round}; "
        f"target {found.target_accuracy:g} {reached}"
    )


def _traffic(summary: RunSummary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("traffic")
    for heading in ("payloads", "messages", "float32", "ratio", "saved"):
        table.add_column(heading, justify="right", no_wrap=True)
    traffic = summary.communication
    for name, volume in (("up", traffic.up), ("down", traffic.down), ("both", traffic.total)):
        table.add_row(name, *_volume(volume))
    return table


def _volume(volume: Volume) -> tuple[str, ...]:
    return (
        format_bytes(volume.payload_bytes),
        format_bytes(volume.message_bytes),
        format_bytes(volume.dense_bytes),
        format_ratio(volume.compression_ratio),
        "-" if volume.percent_saved is None else f"{volume.percent_saved:.2f}%",
    )
