"""Run the comparison: ``python -m benchmarks.peers`` or ``make bench-peers``.

Environments and vectors are kept in a cache folder, so that only the first run installs
anything. A peer that cannot be installed here gets a line that says why.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.peers import report
from benchmarks.peers.environments import (
    PEERS,
    ROOT,
    Peer,
    PeerError,
    prepare,
    run_adapter,
    split_flags,
)
from benchmarks.peers.vectors import write_all


def main() -> None:
    """Install, measure, print the tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000, help="of the made-up vectors")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the entries, 3 repeats"
    )
    parser.add_argument("--peers", help=f"comma-separated, of: {_names(PEERS)}")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench")
    parser.add_argument("--pip-flags", default="", help="added to each pip install")
    parser.add_argument("--output", type=Path, help="write rows and verdicts as JSON")
    arguments = parser.parse_args()
    wanted = arguments.peers.split(",") if arguments.peers else [peer.name for peer in PEERS]
    chosen = [peer for peer in PEERS if peer.name in wanted]
    if unknown := set(wanted) - {peer.name for peer in chosen}:
        parser.error(f"unknown peer {min(unknown)!r}; known are {_names(PEERS)}")
    console = Console(width=None if sys.stdout.isatty() else 150)
    cache = arguments.cache.resolve()
    size = arguments.size // 10 if arguments.quick else arguments.size
    vectors = write_all(cache / "vectors", size)
    rows = []
    for peer in chosen:
        with console.status(peer.name):
            rows += compare(
                peer,
                vectors,
                cache,
                repeats=3 if arguments.quick else arguments.repeats,
                pip_flags=split_flags(arguments.pip_flags),
            )
    sizes = {path.stem: np.load(path, mmap_mode="r").size for path in vectors}
    rows = report.finish(rows, sizes)
    verdicts = report.verdicts(rows)
    for name, entries in sizes.items():
        console.print(report.table_of(name, entries, rows))
    console.print(report.verdict_table(verdicts))
    for line in report.problems(rows):
        console.print(f"not measured here: {line}", style="yellow", markup=False)
    if arguments.output:
        result = {"sizes": sizes, "rows": rows, "verdicts": verdicts}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def compare(
    peer: Peer,
    vectors: Sequence[Path],
    cache: Path,
    *,
    repeats: int,
    pip_flags: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Install a peer if need be and return its rows; memory is measured on the first vector.

    Never raises for what is the peer's: a failed install, import, codec or process is a row.
    """
    try:
        python = prepare(peer, cache, pip_flags)
    except PeerError as error:
        return [{"peer": peer.name, "failed": f"not installable here: {error}"}]
    output = cache / f"{peer.name}.jsonl"
    rows = run_adapter(peer, python, vectors, output, memory=False, repeats=repeats)
    for growth in run_adapter(peer, python, vectors[:1], output, memory=True, repeats=1):
        for row in rows:
            if "vector" in growth and (row.get("vector"), row.get("codec")) == (
                growth["vector"],
                growth["codec"],
            ):
                row |= {key: growth[key] for key in growth if key.endswith("-memory")}
    return rows


def _names(peers: Sequence[Peer]) -> str:
    return ", ".join(peer.name for peer in peers)


if __name__ == "__main__":
    main()
