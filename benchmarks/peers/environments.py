"""One virtual environment for each peer, made once and kept in a cache folder."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
CONSTRAINTS: Final = ("torch==2.13.0",)
"""Hold for every environment, so that no install chooses another torch."""
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)
GIVE_BACK: Final = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Have the C library return freed memory to the system, so that growth can be seen."""
INSTALL_SECONDS: Final = 1800
ADAPTER_SECONDS: Final = 1800


class PeerError(Exception):
    """A peer cannot be installed or does not run here; the message is the reason."""


@dataclass(frozen=True)
class Peer:
    """A package to compare with.

    Parameters
    ----------
    name : str
    adapter : str
        Module that measures it.
    packages : tuple of str
        Installed with what they ask for. None at all, with ``alone`` empty too: the adapter
        runs in this environment.
    alone : tuple of str
        Installed afterwards, without what they ask for.
    """

    name: str
    adapter: str
    packages: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


def _adapter(name: str) -> str:
    return f"benchmarks.peers.adapters.{name}"


PEERS: Final = (
    Peer("fl-opt", _adapter("ours")),
    Peer("by hand", _adapter("by_hand")),
    Peer("flower", _adapter("flower")),
    Peer(
        "nvflare",
        _adapter("nvflare"),
        ("nvflare==2.9.0", "bitsandbytes==0.50.2", "torch==2.13.0", "numpy==2.4.6"),
    ),
    Peer("openfl", _adapter("openfl"), ("openfl==1.9", "torch==2.13.0", "numpy==2.4.6")),
    Peer(
        "hivemind",
        _adapter("hivemind"),
        ("hivemind==1.1.12", "bitsandbytes==0.50.2", "torch==2.13.0", "numpy==2.3.5"),
    ),
    Peer(
        "fedlab",
        _adapter("fedlab"),
        ("pynvml==13.0.1", "torch==2.13.0", "numpy==2.4.6"),
        ("fedlab==1.3.0",),
    ),
)


def prepare(peer: Peer, cache: Path, pip_flags: Sequence[str] = ()) -> Path:
    """Return the Python of a peer's environment, which is made if it is not there yet.

    Raises
    ------
    PeerError
        If a package cannot be installed.
    """
    if not (peer.packages or peer.alone):
        return Path(sys.executable)
    folder = cache / peer.name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker = folder / "installed.json"
    wanted = {"packages": peer.packages, "alone": peer.alone, "constraints": CONSTRAINTS}
    text = json.dumps(wanted, indent=1)
    if marker.exists() and marker.read_text() == text:
        return python
    try:
        venv.create(folder, clear=True, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerError(f"no virtual environment: {error}") from None
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(CONSTRAINTS) + "\n")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += [*pip_flags, "--constraint", str(constraints)]
    if peer.packages:
        _run([*pip, *peer.packages], INSTALL_SECONDS)
    if peer.alone:
        _run([*pip, "--no-deps", *peer.alone], INSTALL_SECONDS)
    marker.write_text(text)
    return python


def run_adapter(
    peer: Peer,
    python: Path,
    vectors: Sequence[Path],
    output: Path,
    *,
    memory: bool,
    repeats: int,
) -> list[dict[str, Any]]:
    """Run a peer's adapter and return its rows, each with the peer's name and version.

    Rows measured before a crash or the time limit are kept; what happened is the last row.
    """
    output.unlink(missing_ok=True)
    command = [str(python), "-m", peer.adapter, *map(str, vectors)]
    command += ["--output", str(output), "--repeats", str(repeats)]
    problem = None
    try:
        if memory:
            _run([*command, "--memory"], ADAPTER_SECONDS, ONE_THREAD | GIVE_BACK)
        else:
            _run(command, ADAPTER_SECONDS, ONE_THREAD)
    except PeerError as error:
        problem = str(error)
    lines = output.read_text().splitlines() if output.exists() else []
    version: dict[str, Any] = {}
    rows = []
    for line in lines:
        row = json.loads(line)
        if "version" in row:
            version = row
        else:
            rows.append({"peer": peer.name} | version | row)
    if problem is not None:
        rows.append({"peer": peer.name} | version | {"failed": problem})
    return rows


def _run(command: list[str], seconds: float, variables: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | (variables or {}),
            timeout=seconds,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"not done after {seconds:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise PeerError(reason(error.stderr) or f"exit status {error.returncode}") from None


def reason(stderr: str) -> str:
    """Return the line of an error output that tells why: pip's last error, or the last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1]


def split_flags(flags: str) -> list[str]:
    """Split pip's flags as a shell does."""
    return shlex.split(flags)
