"""Records of made-up runs on disk, for reports to read."""

from __future__ import annotations

from pathlib import Path

from fl_opt.config import ConfigValue, load_settings
from fl_opt.profiling.rounds import ClientRecord, RoundRecord
from fl_opt.reporting import Run, RunRecorder, load_run


def recorded(folder: Path, name: str, *, lean: bool = False, **config: ConfigValue) -> Run:
    """A run of three rounds and three clients, one of which fails once."""
    settings = load_settings(
        {
            "num-server-rounds": 3,
            "output.folder": str(folder),
            "output.name": name,
            "evaluate.target-accuracy": 0.7,
            **config,
        }
    )
    recorder = RunRecorder(settings, engine="virtual", resume=False)
    recorder.on_start(3)
    recorder.on_round(RoundRecord(0, accuracy=0.1, virtual_seconds=0.0))
    for number in (1, 2, 3):
        recorder.on_round(_round(number, 50 if lean else 1000))
    recorder.on_end()
    return load_run(folder / name)


def _round(number: int, size: int) -> RoundRecord:
    clients = [
        ClientRecord(
            node_id=10**19 + node,
            bytes_down=size * (node + 1),
            bytes_up=size // 10,
            num_examples=10 * (3 - node),
            seconds=float(node + 1),
            train_seconds=0.5,
            staleness=[0, node][: 2 if node else 1],
            codec_up=f"topk({0.01 * (node + 1):.2g}) | ternary",
            mbps_up=1.5 * (node + 1),
            mbps_down=3.0,
            peak_memory_bytes=10**8,
            error="<b>no reply</b>" if number == 2 and node == 2 else None,
        )
        for node in range(3)
    ]
    return RoundRecord(
        number,
        wall_seconds=0.5,
        virtual_seconds=3.0,
        parts={"train": 0.4, "send": 0.3, "wait": 0.1, "download": 1.0, "compute": 1.5},
        bytes_down=6 * size,
        bytes_up=3 * (size // 10),
        bytes_down_by_kind={"delta": 5 * size, "full": size},
        dense_bytes_down=60 * size,
        dense_bytes_up=30 * size,
        loss=2.0 / number,
        accuracy=0.25 * number,
        participants=3,
        failures=int(number == 2),
        client_peak_memory_bytes=10**8,
        clients=clients,
    )
