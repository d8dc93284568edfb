"""Fuzz what reads others' bytes: ``python -m benchmarks.fuzz --targets decode --runs 2000000``.

Needs ``pip install -c constraints.txt atheris``. Each target starts from real payloads, specs,
settings or records and from what its folder holds, is guided by the branches of fl_opt that its
inputs reach, and ends at a finding: an error other than the one that refuses wrong bytes, a
hang of ten seconds or more than 2 GB. A finding is kept beside the corpus.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.fuzz.targets import TARGETS

QUICK_RUNS = 5_000


@dataclass(frozen=True)
class Outcome:
    """What came of a target.

    Attributes
    ----------
    executions, coverage, corpus : int
        How many inputs were read, code edges reached, and inputs kept as they reached new ones.
    seconds : float
    finding : str
        The file of it; empty: none.
    """

    executions: int
    coverage: int
    corpus: int
    seconds: float
    finding: str


def main() -> int:
    """Fuzz what was asked for; 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--runs", type=int, default=100_000, help="executions of each")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} executions")
    parser.add_argument("--folder", type=Path, default=Path("runs/fuzz"))
    arguments = parser.parse_args()
    console = Console()
    if importlib.util.find_spec("atheris") is None:
        console.print("atheris is not installed; mend: pip install -c constraints.txt atheris")
        return 2
    table = Table("target", "executions", "edges", "corpus", "s", "finding")
    found = False
    for name in arguments.targets:
        runs = QUICK_RUNS if arguments.quick else arguments.runs
        outcome = fuzz(name, runs, arguments.folder / name)
        found = found or bool(outcome.finding)
        table.add_row(
            name,
            f"{outcome.executions:,}",
            str(outcome.coverage),
            str(outcome.corpus),
            f"{outcome.seconds:.0f}",
            outcome.finding or "none",
        )
    console.print(table)
    return int(found)


def fuzz(name: str, runs: int, folder: Path) -> Outcome:
    """Fuzz one target in a process of its own."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    before = set(folder.glob("*-*"))
    options = [f"-runs={runs}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=2048"]
    command = [sys.executable, "-m", "benchmarks.fuzz.worker", name, *options]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        ended = subprocess.run(
            [*command, f"-artifact_prefix={folder}/", str(corpus)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "TMPDIR": scratch},  # libFuzzer's end leaves no time to clean up
        )
    (folder / "log.txt").write_text(ended.stdout + ended.stderr)
    findings = sorted(set(folder.glob("*-*")) - before)
    finding = str(findings[0]) if findings else ""
    if ended.returncode and not finding:
        finding = f"exit code {ended.returncode}, see {folder / 'log.txt'}"
    return Outcome(
        _last(r"#(\d+)", ended.stderr),
        _last(r"cov: (\d+)", ended.stderr),
        len(list(corpus.iterdir())),
        time.perf_counter() - started,
        finding,
    )


def _last(pattern: str, text: str) -> int:
    numbers = re.findall(pattern, text)
    return int(numbers[-1]) if numbers else 0


if __name__ == "__main__":
    sys.exit(main())
