"""A process that sets up its data: ``python -m tests.data.preparing <folder> <dataset>``.

It prints what it had to make, which libraries it loaded for that, and a hash of all it got.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys

from fl_opt.config import load_settings
from fl_opt.data import cache as module
from fl_opt.data import in_memory, load_dataset

HEAVY = ("datasets", "flwr", "flwr_datasets", "pandas", "pyarrow", "scipy", "sklearn")


class Made(logging.Handler):
    """The names of what was made."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if " made in " in message:
            self.names.append(message.split()[0].rpartition("-")[0])


def main() -> None:
    folder, dataset = sys.argv[1:]
    made = Made()
    logging.getLogger(module.__name__).addHandler(made)
    logging.getLogger(module.__name__).setLevel(logging.INFO)
    settings = load_settings({"dataset": dataset, "data.cache-folder": folder})
    loaded = load_dataset(settings, 20)
    digest = hashlib.sha256()
    for part in [loaded.test, *(loaded.client(i).train for i in range(20))]:
        ready = in_memory(part)
        digest.update(ready.inputs.numpy().tobytes() + ready.targets.numpy().tobytes())
    heavy = [name for name in HEAVY if name in sys.modules]
    report = {"made": made.names, "heavy": heavy, "digest": digest.hexdigest()}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
