"""The datasets there are, and what each is made from."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_opt.data.digits import digits
from fl_opt.data.fashion_mnist import fashion_mnist, fashion_mnist_files
from fl_opt.data.hub import hub, hub_files
from fl_opt.data.origin import origin_of_code, origin_of_files
from fl_opt.data.shakespeare import play_files, shakespeare
from fl_opt.data.source import Source
from fl_opt.data.synthetic import synthetic
from fl_opt.errors import ConfigError

DATASETS = ("digits", "fashion-mnist", "shakespeare", "synthetic")

_HUB_PREFIX = "hub:"


@dataclass(frozen=True)
class Dataset:
    """A dataset that has not been loaded.

    Attributes
    ----------
    name : str
        Without what follows ``hub:``.
    load : callable
        Returns all its examples.
    origin : callable
        Returns all that they depend on, as JSON has it; None where that is not known before
        they are loaded.
    """

    name: str
    load: Callable[[], Source]
    origin: Callable[[], dict[str, Any] | None]


def find_dataset(name: str, folder: str, seed: int) -> Dataset:
    """Look a dataset up.

    Parameters
    ----------
    name : str
        The setting ``dataset``.
    folder : str
        The setting ``data.folder``.
    seed : int
        The run's, for data that is drawn.

    Raises
    ------
    ConfigError
        If there is none of this name.
    """
    match name:
        case "digits":
            return Dataset(name, digits, lambda: origin_of_code("numpy", "scikit-learn"))
        case "fashion-mnist":
            return Dataset(
                name,
                lambda: fashion_mnist(folder),
                lambda: _made_of(fashion_mnist_files(folder), "numpy"),
            )
        case "shakespeare":
            return Dataset(name, shakespeare, lambda: _made_of(play_files(), "numpy"))
        case "synthetic":
            return Dataset(
                name,
                lambda: synthetic(seed),
                lambda: {"seed": seed, **origin_of_code("numpy")},
            )
    if name.startswith(_HUB_PREFIX):
        dataset_id = name.removeprefix(_HUB_PREFIX)
        return Dataset(
            "hub",
            lambda: hub(dataset_id),
            lambda: _made_of(hub_files(dataset_id), "numpy", "datasets", "pillow"),
        )
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"unknown dataset {name!r}: use {', '.join(DATASETS)} or hub:<dataset-id>{hint}"
    )


def _made_of(files: list[Path] | None, *packages: str) -> dict[str, Any] | None:
    if files is None:
        return None
    return {"files": origin_of_files(files), **origin_of_code(*packages)}
