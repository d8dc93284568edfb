"""What a round costs beside the work of its clients: ``python -m benchmarks.round_latency``.

A SuperLink and two SuperNodes on this machine run an app whose clients do nothing
(``benchmarks/latency_app``), under Flower's FedAvg and under CompressedFedAvg, in turns and in
one deployment. A round is over when the results of training and of evaluation are in. The
first round of a run, in which SuperNodes fetch the app, is not counted.

Two deployments are measured: one of Flower's SuperNodes as they are, which sleep 3 s when there
is no message, and one of SuperNodes that ``fl-opt supernode`` started, which ask more often.
Client processes share the processors with all else here; where each SuperNode has a machine of
its own, starting them takes less time.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fl_opt.deployment.local import DeploymentError, LocalDeployment
from fl_opt.supernode import SUPEREXEC_INTERVAL

APP = Path(__file__).parent / "latency_app"
NODES = 2
POLL_SECONDS = 0.2
FLOWERS_SECONDS = 1.0
"""How often Flower's SuperExec looks for a process to start."""
STOCK = "FedAvg (Flower)"
VARIANTS: dict[str, dict[str, str]] = {
    STOCK: {"strategy": "stock"},
    "CompressedFedAvg": {"strategy": "compressed"},
}
"""Name to run config. An asynchronous strategy goes here, and into ``latency_app``."""
PARTS = {
    "idle": "waits for the SuperNode to ask",
    "spawn": "waits for SuperExec",
    "start": "client process starts, fetches model and app",
    "reply": "waits for the SuperNode to look for the reply",
    "back": "waits for the server; transport",
}
"""Where a message's time goes, in this order."""


@dataclass(frozen=True)
class Row:
    """One variant in one deployment; everything in seconds."""

    variant: str
    poll_seconds: float | None
    rounds: list[float]
    parts: dict[str, float]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.rounds)


class LogReader:
    """Notes when SuperNodes say that they receive a message or send a reply."""

    _LINE = re.compile(r"(Receiving|Sending): .* \(ID: (\w+)\)")
    _PAUSE = 0.005

    def __init__(self) -> None:
        self.moments: dict[tuple[str, str], float] = {}
        self._over = threading.Event()

    @contextmanager
    def reading(self, logs: list[Path]) -> Iterator[None]:
        """Read logs as they are written."""
        threads = [threading.Thread(target=self._follow, args=(log,)) for log in logs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _follow(self, path: Path) -> None:
        rest = ""
        with path.open(encoding="utf-8", errors="replace") as log:
            while not self._over.wait(self._PAUSE):
                *lines, rest = (rest + log.read()).split("\n")
                for line in lines:
                    if found := self._LINE.search(line):
                        self.moments[found[1], found[2]] = time.time()


def main() -> None:
    """Measure all variants and print a table for each deployment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="of each run")
    parser.add_argument("--runs", type=int, default=2, help="of each variant, in turns")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # unwinds, and ends what was started
    rounds, runs = (3, 1) if arguments.quick else (arguments.rounds, arguments.runs)
    console = Console()
    rows: list[Row] = []
    for poll_seconds in (None, POLL_SECONDS):
        with console.status("measuring: some minutes"):
            rows += measure(poll_seconds, rounds, runs)
    console.print(as_table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def measure(poll_seconds: float | None, rounds: int, runs: int) -> list[Row]:
    """Run the variants in turns, in one deployment."""
    deployment = LocalDeployment(NODES, poll_seconds=poll_seconds)
    interval = deployment.poll_seconds or FLOWERS_SECONDS
    deployment.environment[SUPEREXEC_INTERVAL] = str(interval)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    reader = LogReader()
    with deployment, reader.reading([deployment.supernode_log(i) for i in range(NODES)]):
        for name, config in list(VARIANTS.items()) * runs:
            seen = run(deployment, {**config, "num-server-rounds": rounds})
            ends = seen["ends"][1:]  # without what comes before the end of the first round
            seconds[name] += [after - before for before, after in pairwise(ends)]
            parts[name] += split(seen["messages"], reader.moments, since=ends[0])
    return [Row(name, poll_seconds, seconds[name], medians(parts[name])) for name in VARIANTS]


def run(deployment: LocalDeployment, config: dict[str, Any]) -> dict[str, Any]:
    """Run the app once and return what its server saw."""
    with tempfile.TemporaryDirectory(prefix="fl-opt-latency-") as folder:
        output = Path(folder) / "seen.json"
        finished = deployment.run(APP, {**config, "output": str(output)}, timeout=300.0)
        if not finished.completed:
            raise DeploymentError(f"the run ended as {finished.status}: {finished.details}")
        return dict(json.loads(output.read_text(encoding="utf-8")))


def split(
    messages: dict[str, dict[str, Any]], moments: dict[tuple[str, str], float], since: float
) -> Iterator[dict[str, float]]:
    """Yield for each message after a moment where its time went."""
    for key, message in messages.items():
        received = moments.get(("Receiving", key))
        replied = moments.get(("Sending", message.get("reply", "")))
        if message["sent"] < since or received is None or replied is None:
            continue
        times = [message["sent"], received, message["started"], message["entered"]]
        times += [replied, message["seen"]]
        between = (after - before for before, after in pairwise(times))
        yield dict(zip(PARTS, between, strict=True))


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each part."""
    return {part: statistics.median(row[part] for row in rows) for part in PARTS}


def as_table(rows: list[Row]) -> Table:
    """Lay the rows out as columns.

    Parts are medians of single messages, of which FedAvg sends two a round and we send one.
    """
    table = Table("seconds")
    for row in rows:
        nodes = "fl-opt supernode" if row.poll_seconds else "flower-supernode"
        table.add_column(f"{row.variant}\n{nodes}", justify="right")
    stock = {row.poll_seconds: row.median for row in rows if row.variant == STOCK}
    table.add_row("median round", *(f"{row.median:.1f}" for row in rows))
    spans = (f"{min(row.rounds):.1f} to {max(row.rounds):.1f}" for row in rows)
    table.add_row("all rounds", *spans)
    table.add_row("faster", *(f"{stock[row.poll_seconds] / row.median:.1f}x" for row in rows))
    table.add_row(
        "than Flower as it is",
        *(f"{stock[None] / row.median:.1f}x" for row in rows),
        end_section=True,
    )
    for part, meaning in PARTS.items():
        table.add_row(meaning, *(f"{row.parts[part]:.2f}" for row in rows))
    return table


if __name__ == "__main__":
    main()
