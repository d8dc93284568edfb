"""Record real updates for the benchmarks: ``python -m benchmarks.record_updates``.

Two tasks are trained by federated averaging with server momentum, in this process and
without any compression:

* ``cnn`` on Fashion-MNIST, 100 clients with Dirichlet(0.3) shares of the classes;
* ``char_lm`` on Shakespeare, 100 clients of some speaking roles each.

Kept are updates of clients (the difference that local training makes), of one client twice in
successive rounds, and differences between models some rounds apart, as a server sends
them to a client that comes back. Each is a float32 vector in a ``.npy`` file;
``manifest.json`` beside them tells what each one is and the shapes of the arrays in it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from fl_opt.config import DataSettings, Settings, TrainSettings
from fl_opt.data import load_dataset
from fl_opt.errors import DataError
from fl_opt.models import build_model
from fl_opt.seeds import derive_seed
from fl_opt.training import evaluate, get_arrays, set_arrays, train

Vector = NDArray[np.float32]
Kind = Literal["client-update", "model-difference"]

CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fl-opt" / "updates"
)
NUM_CLIENTS: Final = 100
COHORT: Final = 10
SERVER_LEARNING_RATE: Final = 0.5
SERVER_MOMENTUM: Final = 0.9
WATCHED_CLIENT: Final = 0
"""Trained in every recorded round and the one after it, in the cohort or not."""
APART: Final = (1, 4, 10)
"""Model differences are taken over so many rounds."""


@dataclass(frozen=True)
class Task:
    """What is trained, and the rounds that are recorded."""

    name: str
    settings: Settings
    rounds: tuple[int, ...]


@dataclass(frozen=True)
class Recorded:
    """One vector of a task.

    Attributes
    ----------
    file : str
        In the task's folder.
    kind : {"client-update", "model-difference"}
    round : int
        The round it was recorded in, from 1.
    client : int
        Who trained; -1 for a model difference.
    apart : int
        Rounds between the two models; 0 for a client's update.
    """

    file: str
    kind: Kind
    round: int
    client: int
    apart: int


@dataclass(frozen=True)
class Recording:
    """All vectors of a task, read lazily."""

    folder: Path
    layout: tuple[tuple[int, ...], ...]
    vectors: tuple[Recorded, ...]

    @classmethod
    def open(cls, name: str, cache: Path = CACHE) -> Self:
        """Open what was recorded of a task.

        Raises
        ------
        DataError
            If nothing was.
        """
        try:
            manifest = json.loads((cache / name / "manifest.json").read_text())
        except FileNotFoundError:
            raise DataError(
                f"no updates of {name!r} in {cache}: run python -m benchmarks.record_updates"
            ) from None
        return cls(
            cache / name,
            tuple(tuple(shape) for shape in manifest["layout"]),
            tuple(Recorded(**entry) for entry in manifest["vectors"]),
        )

    def load(self, recorded: Recorded) -> Vector:
        """Read one vector, float32 of shape ``(size,)``."""
        vector: Vector = np.load(self.folder / recorded.file, allow_pickle=False)
        return vector


def tasks(quick: bool) -> tuple[Task, ...]:
    """Return the tasks; quick ones stop early."""
    train_settings = TrainSettings(
        local_epochs=1, batch_size=32, learning_rate=0.1, momentum=0.0, clip_norm=0.0
    )
    return (
        Task(
            "fashion-mnist-cnn",
            Settings(
                dataset="fashion-mnist",
                model="cnn",
                data=DataSettings(partition="dirichlet(0.3)"),
                train=train_settings,
            ),
            (2, 5) if quick else (2, 12, 24),
        ),
        Task(
            "shakespeare-char-lm",
            Settings(
                dataset="shakespeare",
                model="char_lm",
                data=DataSettings(partition="natural"),
                train=train_settings.model_copy(
                    update={"local_steps": 4, "learning_rate": 1.0, "clip_norm": 1.0}
                ),
            ),
            (2, 5) if quick else (2, 12, 24),
        ),
    )


def record(task: Task, cache: Path, console: Console) -> None:
    """Train a task and keep its vectors."""
    settings = task.settings
    dataset = load_dataset(settings, NUM_CLIENTS)
    model = build_model(settings.model, dataset.info, derive_seed(settings.seed, "model"))
    template = get_arrays(model)
    global_model = flatten(template)
    past = deque([global_model], maxlen=max(APART) + 1)
    momentum = np.zeros_like(global_model)
    folder = cache / task.name
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Recorded] = []

    def keep(vector: Vector, *what: Any) -> None:
        kept.append(Recorded(f"{len(kept):03}.npy", *what))
        np.save(folder / kept[-1].file, vector)

    def local_update(client: int, round_number: int) -> tuple[Vector, int]:
        set_arrays(model, unflatten(global_model, template))
        seed = derive_seed(settings.seed, "train", client, round_number)
        result = train(model, dataset.client(client).train, settings.train, seed=seed)
        return flatten(get_arrays(model)) - global_model, result.num_samples

    last = max(task.rounds)
    for round_number in range(1, last + 2):
        recorded, again = round_number in task.rounds, round_number - 1 in task.rounds
        generator = np.random.default_rng(derive_seed(settings.seed, "cohort", round_number))
        cohort = generator.choice(NUM_CLIENTS, COHORT, replace=False).tolist()
        updates, weights = zip(
            *(local_update(client, round_number) for client in cohort), strict=True
        )
        if recorded or again:
            watched, _ = local_update(WATCHED_CLIENT, round_number)
            keep(watched, "client-update", round_number, WATCHED_CLIENT, 0)
        if recorded:
            keep(updates[0], "client-update", round_number, cohort[0], 0)
        mean = np.average(updates, axis=0, weights=weights).astype(np.float32)
        momentum = np.float32(SERVER_MOMENTUM) * momentum + mean
        global_model = global_model + np.float32(SERVER_LEARNING_RATE) * momentum
        past.append(global_model)
        for apart in APART if recorded else APART[:1] if again else ():
            if apart < len(past):
                difference = global_model - past[-1 - apart]
                keep(difference, "model-difference", round_number, -1, apart)
        console.print(f"{task.name}: round {round_number} of {last + 1}", end="\r")
    set_arrays(model, unflatten(global_model, template))
    accuracy = evaluate(model, dataset.test).accuracy
    manifest = {
        "layout": [array.shape for array in template.values()],
        "names": list(template),
        "accuracy": accuracy,
        "vectors": [asdict(entry) for entry in kept],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    console.print(
        f"{task.name}: {len(kept)} vectors of {global_model.size:,} entries in {folder}; "
        f"accuracy after {last + 1} rounds: {accuracy:.3f}"
    )


def flatten(arrays: Mapping[str, NDArray[Any]]) -> Vector:
    """Join arrays, in order, to one float32 vector."""
    return np.concatenate([array.reshape(-1) for array in arrays.values()]).astype(np.float32)


def unflatten(vector: Vector, template: Mapping[str, NDArray[Any]]) -> dict[str, Vector]:
    """Cut a vector into arrays of the template's names and shapes."""
    ends = np.cumsum([array.size for array in template.values()])
    return {
        name: vector[end - array.size : end].reshape(array.shape)
        for (name, array), end in zip(template.items(), ends, strict=True)
    }


def main() -> None:
    """Record both tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six rounds of each task")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default: {CACHE}")
    arguments = parser.parse_args()
    console = Console()
    torch.set_num_threads(1)  # more only wait for each other on models this small
    for task in tasks(arguments.quick):
        begin = time.perf_counter()
        record(task, arguments.cache, console)
        console.print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
