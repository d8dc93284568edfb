"""A small run whose numbers are easy to add up by hand."""

from __future__ import annotations

from pathlib import Path

from fl_opt.config import ConfigValue, Settings, load_settings
from fl_opt.profiling.rounds import ClientRecord, RoundRecord


def settings(folder: Path, **changes: ConfigValue) -> Settings:
    """Four rounds, recorded under ``folder / "four"``."""
    return load_settings(
        {
            "num-server-rounds": 4,
            "output.folder": str(folder),
            "output.name": "four",
            "evaluate.target-accuracy": 0.8,
            **changes,
        }
    )


def records() -> list[RoundRecord]:
    """The evaluation of the initial model, and four rounds of two clients."""
    accuracies = (0.1, 0.5, 0.9, 0.85, 0.8)
    seconds = (0.5, 4.0, 1.0, 2.0, 1.0)
    rounds = [RoundRecord(0, wall_seconds=0.5, virtual_seconds=0.0, accuracy=0.1, loss=2.3)]
    rounds += [
        RoundRecord(
            number,
            wall_seconds=seconds[number],
            virtual_seconds=10.0 * number,
            parts={"train": 0.5, "upload": 2.0, "decode-aggregate": 0.25 * number},
            bytes_down=1000,
            bytes_up=20,
            message_bytes_down=1250,
            message_bytes_up=100,
            dense_bytes_down=1000,
            dense_bytes_up=1000,
            train_loss=1.0 / number,
            loss=2.0 / number,
            accuracy=accuracies[number],
            participants=2,
            failures=1 if number == 3 else 0,
            server_peak_memory_bytes=100_000_000 + number,
            client_peak_memory_bytes=200_000_000 - number,
            clients=[
                ClientRecord(7, bytes_down=500, bytes_up=10, num_examples=30),
                ClientRecord(
                    9, bytes_down=500, bytes_up=10, error="stale" if number == 3 else None
                ),
            ],
        )
        for number in (1, 2, 3, 4)
    ]
    return rounds
