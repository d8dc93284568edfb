"""Kills processes that save checkpoints, and looks at what they leave; run as a script.

A process of its own, without threads, because it forks. Every checkpoint here belongs to a
generation, which all its blobs tell: a mixture of two would show.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from fl_opt.checkpoint import Checkpoints, folder

FIXED = b"as it was" * 500


def blobs(generation: int) -> dict[str, bytes | None]:
    """Return what a generation saves over another: two new blobs, and one that stays."""
    number = b"%d " % generation
    return {"model": number * 40_000, f"note-{generation % 2}": number, "fixed": None}


def generation_of(checkpoints: Checkpoints) -> int:
    """Return the generation of a complete checkpoint; fail on anything else."""
    found = checkpoints.load()
    generation = int(found["model"].split(maxsplit=1)[0])
    expected = blobs(generation) | {"fixed": FIXED}
    assert found == expected, f"not generation {generation}: {sorted(found)}"
    return generation


def start(path: Path) -> Checkpoints:
    """Save generation 0."""
    checkpoints = Checkpoints(path)
    checkpoints.save(blobs(0) | {"fixed": FIXED})
    return checkpoints


def kill_at_every_line(path: Path) -> int:
    """Kill a save before each line of code that it runs; return how often."""
    checkpoints = start(path)
    outcomes = set()
    for line in range(1, 10_000):
        before = generation_of(checkpoints)
        child = os.fork()
        if not child:
            sys.settrace(_Killer(line).trace)
            checkpoints.save(blobs(before + 1))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        outcomes.add(generation_of(checkpoints) - before)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            assert outcomes == {0, 1}
            # What the killed ones left behind was no obstacle, and is gone.
            assert len(list(path.iterdir())) == len(("manifest.json", "lock", *blobs(0)))
            return line - 1
    raise AssertionError("a save never ended")


def kill_at_random_moments(path: Path, times: int) -> int:
    """Kill processes that save one generation after the other; return how many were saved."""
    checkpoints = start(path)
    began = time.perf_counter()
    checkpoints.save(blobs(1))
    usual = time.perf_counter() - began
    moments = random.Random(3)  # noqa: S311
    saved = 1
    for _ in range(times):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _save_for_ever(checkpoints, saved, writer)
        os.close(writer)
        time.sleep(moments.uniform(0.0, 4.0 * usual))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            done = saved + len(pipe.read())  # the saves that had returned
        saved = generation_of(checkpoints)
        assert done <= saved <= done + 1, f"{done} were saved, {saved} is there"
    return saved


def _save_for_ever(checkpoints: Checkpoints, generation: int, pipe: int) -> NoReturn:
    while True:
        generation += 1
        checkpoints.save(blobs(generation))
        os.write(pipe, b".")


class _Killer:
    """Kills its own process before the n-th line of the module that saves."""

    def __init__(self, line: int) -> None:
        self.left = line

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != folder.__file__:
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


if __name__ == "__main__":
    # Syncing is for machines that lose power: the kernel keeps what a killed process wrote.
    os.fsync = lambda fd: None
    place = Path(sys.argv[1])
    lines = kill_at_every_line(place / "lines")
    generations = kill_at_random_moments(place / "moments", 60)
    sys.stdout.write(f"{lines} {generations}\n")
