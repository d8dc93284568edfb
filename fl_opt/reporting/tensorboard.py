"""A run for TensorBoard, written while it goes on; needs the extra ``[tensorboard]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fl_opt.errors import ConfigError
from fl_opt.profiling.rounds import RoundRecord

_SCALARS = (
    "loss",
    "accuracy",
    "federated_loss",
    "federated_accuracy",
    "train_loss",
    "bytes_down",
    "bytes_up",
    "wall_seconds",
    "virtual_seconds",
    "participants",
    "failures",
    "stale",
    "server_peak_memory_bytes",
    "client_peak_memory_bytes",
)


class TensorBoardWriter:
    """An observer that writes one point a round for each figure and part of the time.

    Parameters
    ----------
    folder : Path
        For the event file; show it with ``tensorboard --logdir``.

    Raises
    ------
    ConfigError
        If tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "TensorBoard's files need the extra: pip install 'fl-opt[tensorboard]'"
            ) from None
        self._writer: Any = SummaryWriter(str(folder))
        self._bytes = 0

    def on_start(self, num_rounds: int) -> None:
        """Do nothing: the file is open."""

    def on_reply(self, server_round: int, received: int, expected: int) -> None:
        """Do nothing: points are for whole rounds."""

    def on_round(self, record: RoundRecord) -> None:
        """Write the round's figures; what was not measured is left out."""
        number = record.server_round
        for name in _SCALARS:
            value = getattr(record, name)
            if value is not None:
                self._writer.add_scalar(f"round/{name.replace('_', '-')}", value, number)
        for part, seconds in record.parts.items():
            self._writer.add_scalar(f"seconds/{part}", seconds, number)
        self._bytes += record.bytes_down + record.bytes_up
        self._writer.add_scalar("total/bytes", self._bytes, number)
        score = record.federated_accuracy if record.accuracy is None else record.accuracy
        if score is not None:
            # TensorBoard's steps are whole numbers: kilobytes, to see what accuracy costs.
            self._writer.add_scalar("total/accuracy-by-kilobytes", score, self._bytes // 1000)
        self._writer.flush()

    def on_end(self) -> None:
        """Close the file."""
        self._writer.close()
