"""Datasets and their divisions out of the cache, made where they are not in it.

Examples and division are entries of their own: however many divisions there are of a dataset,
its examples are stored once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fl_opt.cache import cache_folder
from fl_opt.config import DataSettings
from fl_opt.data.cache import ArrayCache, Contents
from fl_opt.data.catalogue import Dataset
from fl_opt.data.division import Division, divide
from fl_opt.data.examples import Examples, TaskInfo
from fl_opt.data.mapped import MappedExamples
from fl_opt.data.origin import origin_of_code
from fl_opt.data.source import Source


def build_cache(settings: DataSettings) -> ArrayCache:
    """Return the cache that the settings ask for."""
    folder = cache_folder(settings.cache_folder) / "data"
    return ArrayCache(folder, settings.cache_limit_mb * 1_000_000)


@dataclass(frozen=True)
class Prepared:
    """A dataset's examples, and what they were made from.

    Attributes
    ----------
    name : str
        Of the dataset.
    source : Source
        Memory maps where there is a cache.
    origin : dict or None
        As JSON has it; None where the cache is not to be used.
    """

    name: str
    source: Source
    origin: dict[str, Any] | None


def prepared_source(dataset: Dataset, cache: ArrayCache) -> Prepared:
    """Return all examples of a dataset, out of the cache if it is known what they depend on.

    Errors are those of loading the dataset.
    """
    origin = dataset.origin() if cache.limit_bytes else None
    if origin is None:
        return Prepared(dataset.name, dataset.load(), None)
    made_from = {"dataset": dataset.name, **origin}
    contents = cache.get(dataset.name, made_from, lambda: _of_source(dataset.load()))
    return Prepared(dataset.name, _as_source(contents), made_from)


def prepared_division(
    prepared: Prepared, cache: ArrayCache, settings: DataSettings, num_clients: int, seed: int
) -> Division:
    """Return how a dataset is divided among clients, out of the cache like its examples.

    Parameters and errors are those of :func:`~fl_opt.data.division.divide`.
    """

    def make() -> Division:
        return divide(prepared.source, settings, num_clients, seed)

    if prepared.origin is None:
        return make()
    made_from = {
        "examples": prepared.origin,
        "partition": settings.partition,
        "validation-fraction": settings.validation_fraction,
        "max-examples": settings.max_examples,
        "num-clients": num_clients,
        "seed": seed,
        **origin_of_code("numpy", "datasets", "flwr-datasets"),
    }
    contents = cache.get(
        f"{prepared.name}-division", made_from, lambda: Contents(vars(make()), {})
    )
    return Division(**contents.arrays)


def _of_source(source: Source) -> Contents:
    arrays: dict[str, NDArray[Any]] = {
        "train-inputs": source.train.inputs.numpy(),
        "train-targets": source.train.targets.numpy(),
        "test-inputs": source.test.inputs.numpy(),
        "test-targets": source.test.targets.numpy(),
    }
    if source.classes is not None:
        arrays["classes"] = source.classes
    if source.owners is not None:
        arrays["owners"] = source.owners
    return Contents(arrays, asdict(source.info))


def _as_source(contents: Contents) -> Source:
    arrays, facts = contents.arrays, contents.facts
    info = TaskInfo(facts["kind"], tuple(facts["input_shape"]), facts["num_classes"])
    train = _as_examples(arrays["train-inputs"], arrays["train-targets"])
    test = _as_examples(arrays["test-inputs"], arrays["test-targets"])
    return Source(info, train, test, arrays.get("classes"), arrays.get("owners"))


def _as_examples(inputs: NDArray[Any], targets: NDArray[Any]) -> Examples:
    tensors = torch.from_numpy(inputs), torch.from_numpy(targets)
    if isinstance(inputs, np.memmap) and isinstance(targets, np.memmap):
        files = Path(str(inputs.filename)), Path(str(targets.filename))
        return MappedExamples(*tensors, files)
    return Examples(*tensors)
