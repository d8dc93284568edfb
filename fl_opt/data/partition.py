"""Dividing examples among clients, by the partitioners of flwr-datasets.

==========================  ==========================================================
``iid``                     equal parts, drawn at random
``dirichlet(alpha)``        each class is divided by shares drawn from a Dirichlet
                            distribution: the smaller alpha, the more clients differ
``pathological(classes)``   each client has examples of this many classes only
``natural``                 each client has what belongs to one owner, or to several
                            where there are more owners than clients
==========================  ==========================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from fl_opt.data.source import Source
from fl_opt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

Scheme = Literal["iid", "dirichlet", "pathological", "natural"]

_FORMS = "iid, dirichlet(alpha), pathological(classes), natural"
_ARGUMENTS = {"iid": "", "dirichlet": "alpha", "pathological": "classes", "natural": ""}


@dataclass(frozen=True)
class PartitionSpec:
    """A parsed ``data.partition``; ``argument`` is 0 for schemes that take none."""

    scheme: Scheme
    argument: float = 0.0


def parse_partition(text: str) -> PartitionSpec:
    """Parse the setting ``data.partition``.

    Raises
    ------
    ConfigError
        Names the position (from 0) of what is wrong, and what may stand there.
    """
    name, bracket, rest = text.partition("(")
    if name.strip() not in _ARGUMENTS:
        raise _wrong(text, 0, f"expected one of {_FORMS}, not {name.strip()!r}")
    scheme = cast(Scheme, name.strip())
    wanted, position = _ARGUMENTS[scheme], len(name) + len(bracket)
    if not wanted:
        if bracket:
            raise _wrong(text, len(name), f"{scheme} takes no argument")
        return PartitionSpec(scheme)
    argument, closing, tail = rest.partition(")")
    if not closing or tail.strip():
        raise _wrong(text, position, f"expected {scheme}({wanted})")
    return PartitionSpec(scheme, _number(text, position, scheme, argument))


def partition(
    source: Source, rows: NDArray[np.int64], text: str, num_clients: int, seed: int
) -> list[NDArray[np.int64]]:
    """Divide examples among clients.

    Parameters
    ----------
    source : Source
    rows : ndarray of int64, shape (n,)
        Positions of the training examples to divide, in random order.
    text : str
        The setting ``data.partition``.
    num_clients : int
    seed : int
        Of the partitioner's draws.

    Returns
    -------
    list of ndarray of int64
        For each client the positions it holds; at least one.

    Raises
    ------
    ConfigError
        If the text is wrong or asks for what this dataset does not have.
    DataError
        If there is too little data to give every client some.
    """
    spec = parse_partition(text)
    if len(rows) < num_clients:
        raise DataError(f"{len(rows)} training examples are too few for {num_clients} clients")
    keys = _keys(source, rows, spec, num_clients)
    partitioner = _partitioner(spec, num_clients, seed)
    try:
        parts = _apply(partitioner, keys, num_clients)
    except ValueError as error:
        reason = str(error).partition(". ")[0]
        raise DataError(
            f"data.partition = {text!r} cannot divide {len(rows)} examples among "
            f"{num_clients} clients ({reason})"
        ) from None
    if min(map(len, parts)) == 0:
        raise DataError(
            f"data.partition = {text!r} leaves one of {num_clients} clients without examples"
        )
    return [rows[part] for part in parts]


def _number(text: str, position: int, scheme: Scheme, argument: str) -> float:
    try:
        value = float(argument)
    except ValueError:
        raise _wrong(text, position, f"expected a number, not {argument!r}") from None
    if not (0 < value < math.inf):
        raise _wrong(text, position, f"{_ARGUMENTS[scheme]} must be above 0, not {argument}")
    if scheme == "pathological" and not value.is_integer():
        raise _wrong(text, position, f"classes must be a whole number, not {argument}")
    return value


def _wrong(text: str, position: int, reason: str) -> ConfigError:
    return ConfigError(f"data.partition = {text!r}: {reason} at position {position}")


def _keys(
    source: Source, rows: NDArray[np.int64], spec: PartitionSpec, num_clients: int
) -> NDArray[np.int64]:
    """Return the column that the partitioner divides by, shape (n,)."""
    if spec.scheme == "iid":
        return np.zeros(len(rows), np.int64)
    if spec.scheme == "natural":
        if source.owners is None:
            raise ConfigError(
                "data.partition = 'natural': this dataset's examples belong to nobody; "
                "use iid, dirichlet(alpha) or pathological(classes)"
            )
        return _group(source.owners[rows], num_clients)
    if source.classes is None:
        raise ConfigError(
            f"data.partition = {spec.scheme!r}: this dataset's examples have no class; "
            "use iid or natural"
        )
    classes = source.classes[rows]
    num_classes = len(np.unique(classes))
    if spec.scheme == "pathological" and spec.argument > num_classes:
        raise ConfigError(
            f"data.partition = 'pathological({spec.argument:g})': there are only "
            f"{num_classes} classes"
        )
    return classes


def _group(owners: NDArray[np.int64], num_clients: int) -> NDArray[np.int64]:
    """Give each owner a client: runs of neighbouring owners, equal in number within one."""
    unique, index = np.unique(owners, return_inverse=True)
    if len(unique) < num_clients:
        raise DataError(f"{len(unique)} natural owners are too few for {num_clients} clients")
    client_of = np.arange(len(unique)) * num_clients // len(unique)
    return client_of[index]


def _partitioner(spec: PartitionSpec, num_clients: int, seed: int) -> Partitioner:
    # flwr-datasets takes over a second to import.
    from flwr_datasets import partitioner

    if spec.scheme == "iid":
        return partitioner.IidPartitioner(num_clients)
    if spec.scheme == "dirichlet":
        return partitioner.DirichletPartitioner(
            num_clients, "key", spec.argument, min_partition_size=1, seed=seed
        )
    if spec.scheme == "pathological":
        # "first-deterministic" leaves no class unused where there are enough clients.
        return partitioner.PathologicalPartitioner(
            num_clients, "key", int(spec.argument), "first-deterministic", seed=seed
        )
    return partitioner.GroupedNaturalIdPartitioner("key", group_size=1, sort_unique_ids=True)


def _apply(
    partitioner: Partitioner, keys: NDArray[np.int64], num_clients: int
) -> Sequence[NDArray[np.int64]]:
    from fl_opt.data.index_table import IndexTable

    partitioner.dataset = IndexTable.of(keys)
    with warnings.catch_warnings():
        # Redrawn Dirichlet shares and unused classes are announced as warnings; what
        # matters of them (an empty client) is checked by the caller.
        warnings.simplefilter("ignore")
        parts = [partitioner.load_partition(client) for client in range(num_clients)]
    return [part["position"].to_numpy() for part in parts]
