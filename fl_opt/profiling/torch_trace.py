"""torch.profiler around the training of chosen clients in chosen rounds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fl_opt.config import Settings
from fl_opt.errors import ConfigError


@contextmanager
def torch_trace(settings: Settings, server_round: int, client: int) -> Iterator[None]:
    """Profile what happens inside, if the section ``profiling`` asks for this round and client.

    The trace is written to ``<profiling.folder>/round-<round>-client-<client>.json``, for
    ui.perfetto.dev or ``chrome://tracing``: operators, their shapes and the memory they take,
    and kernels where there is CUDA.

    Parameters
    ----------
    settings : Settings
    server_round : int
        From 1.
    client : int
        The partition's number.

    Raises
    ------
    ConfigError
        If the trace cannot be written; nothing is lost of what happened inside, but it counts
        as failed.
    """
    asked = settings.profiling
    chosen = _holds(asked.torch_rounds, server_round)
    if not chosen or (asked.torch_clients and not _holds(asked.torch_clients, client)):
        yield
        return
    # Some builds write a line to standard error for each use; read when it is used first.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    path = Path(asked.folder).expanduser() / f"round-{server_round}-client-{client}.json"
    with profile(activities=activities, record_shapes=True, profile_memory=True) as trace:
        yield
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # torch says of a file that it cannot write only that
    except OSError as error:
        raise ConfigError(
            f"setting 'profiling.folder' = {asked.folder!r}: {error.strerror}"
        ) from None
    trace.export_chrome_trace(str(path))


def _holds(numbers: str, number: int) -> bool:
    """Say whether a list such as ``2, 5-7`` has a number."""
    for item in filter(None, (part.strip() for part in numbers.split(","))):
        first, _, last = item.partition("-")
        if int(first) <= number <= int(last or first):
            return True
    return False
