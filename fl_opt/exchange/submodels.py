"""Sub-models: which hidden units a client trains that is too weak for the whole width.

A model that is a chain of layers is cut down by leaving out hidden units, with all weights that
lead to and from them; inputs and outputs stay. A sub-model is then a smaller model of the same
kind. Server and client derive it from the model's shapes, its version and the client's width:
an update of a sub-model carries nothing but its own entries.

============  =====================================================================
``none``      everybody trains the whole model
``static``    weak clients train the first units of each layer (HeteroFL)
``rolling``   they train a window of units that moves on from version to version
              (FedRolex), so that every unit is trained
============  =====================================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final, Protocol

import numpy as np

from fl_opt.codecs.grammar import build_named
from fl_opt.codecs.update import Positions
from fl_opt.errors import ConfigError
from fl_opt.exchange.coverage import Coverage
from fl_opt.params import ArraySpec, ParamSpec
from fl_opt.seeds import derive_seed

NO_SUBMODELS: Final = "none"
_GOLDEN: Final = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: multiples of it fall evenly into the 64-bit numbers."""


class Rule(Protocol):
    """Who trains which units."""

    name: ClassVar[str]

    @property
    def width(self) -> float:
        """Share of the hidden units that weak clients train."""

    @property
    def share(self) -> float:
        """Share of the clients that are weak."""

    def first(self, units: int, version: int) -> int:
        """Return the first of the units that weak clients train of a layer of so many."""


@dataclass(frozen=True)
class Whole:
    """Everybody trains the whole model."""

    name: ClassVar[str] = NO_SUBMODELS
    width: ClassVar[float] = 1.0
    share: ClassVar[float] = 0.0

    def first(self, units: int, version: int) -> int:
        """Return 0."""
        return 0


@dataclass(frozen=True)
class Static:
    """Weak clients train the first units of each hidden layer.

    Diao, Ding and Tarokh 2021, "HeteroFL" (arXiv 2010.01264). Units that only strong clients
    train learn from these alone.

    Parameters
    ----------
    width : float
        Share of the hidden units, in (0, 1).
    share : float
        Share of the clients that are weak, in (0, 1].
    """

    width: float = 0.5
    share: float = 1.0

    name: ClassVar[str] = "static"

    def __post_init__(self) -> None:
        _check(self.width, self.share)

    def first(self, units: int, version: int) -> int:
        """Return 0."""
        return 0


@dataclass(frozen=True)
class Rolling:
    """Weak clients train a window of units that moves on with each version of the model.

    Alam et al. 2022, "FedRolex" (arXiv 2212.01548), where it moves by one unit a round.

    Parameters
    ----------
    width : float
        Share of the hidden units, in (0, 1).
    share : float
        Share of the clients that are weak, in (0, 1].
    shift : int
        Units by which the window moves on, at least 1; it begins anew behind the last unit.
    """

    width: float = 0.5
    share: float = 1.0
    shift: int = 1

    name: ClassVar[str] = "rolling"

    def __post_init__(self) -> None:
        _check(self.width, self.share)
        if self.shift < 1:
            raise ConfigError(f"shift = {self.shift} is not at least 1")

    def first(self, units: int, version: int) -> int:
        """Return where the window stands."""
        return version * self.shift % units


SUBMODELS: Final[Mapping[str, type[Rule]]] = {
    kind.name: kind for kind in (Whole, Static, Rolling)
}


@lru_cache(maxsize=16)
def build_submodels(spec: str) -> Rule:
    """Build the rule that a spec such as ``rolling(0.5, share=0.3)`` names.

    Raises
    ------
    ConfigError
        Names the position in the spec and the alternatives.
    """
    return build_named(spec, "submodels", SUBMODELS)


def width_of(rule: Rule, client_id: int, *, seed: int) -> float:
    """Return the width that a client trains, the same in all rounds: 1 for the whole model.

    Of clients that are numbered from 0 very nearly the share that the rule names is weak.

    Parameters
    ----------
    rule : Rule
    client_id : int
        Stays with the client.
    seed : int
        Of the run.
    """
    start = derive_seed(seed, "submodels") << 1
    place = ((start + client_id * _GOLDEN) % (1 << 64)) / (1 << 64)
    return rule.width if place < rule.share else 1.0


@dataclass(frozen=True)
class SubModel:
    """A part of a model.

    Attributes
    ----------
    spec : ParamSpec
        Of the part alone: the same names, smaller shapes.
    covers : Coverage
        Where its entries stand in the whole, in the same order.
    """

    spec: ParamSpec
    covers: Coverage


@lru_cache(maxsize=16)
def cut(spec: ParamSpec, submodels: str, width: float, version: int) -> SubModel:
    """Return the sub-model of a width.

    Parameters
    ----------
    spec : ParamSpec
        Of a chain of layers: weights ``(outputs, inputs, ...)``, each with or without a vector
        of biases behind it.
    submodels : str
        Spec of the rule.
    width : float
        In (0, 1); of each hidden layer that share of the units is taken, at least one.
    version : int
        Of the model.

    Raises
    ------
    ConfigError
        If the model is none, or the width out of range.
    """
    rule = build_submodels(submodels)
    if not 0.0 < width < 1.0:
        raise ConfigError(f"width = {width} of a sub-model is not between 0 and 1")
    layers = list(_layers(spec))
    arrays: list[ArraySpec] = []
    positions: list[Positions] = []
    start, inputs = 0, np.arange(layers[0][0].shape[1])
    for index, layer in enumerate(layers):
        units = layer[0].shape[0]
        rows = np.arange(units)
        if index + 1 < len(layers):
            count = max(round(width * units), 1)
            rows = np.sort((rule.first(units, version) + np.arange(count)) % units)
        for array in layer:
            block = np.arange(start, start + array.size).reshape(array.shape)[rows]
            if len(array.shape) > 1:
                block = block[:, inputs]
            arrays.append(dataclasses.replace(array, shape=block.shape))
            positions.append(block.reshape(-1))
            start += array.size
        if index + 1 < len(layers):
            fold = layers[index + 1][0].shape[1] // units  # pixels of a channel, flattened
            inputs = (rows[:, None] * fold + np.arange(fold)).reshape(-1)
    covers = Coverage.at(np.concatenate(positions), spec.size)
    return SubModel(ParamSpec(tuple(arrays)), covers)


def _layers(spec: ParamSpec) -> Iterator[list[ArraySpec]]:
    """Yield the arrays of each layer, the weights first."""
    if spec.exact_arrays:
        raise _no_chain(spec.exact_arrays[0], "travels exactly")
    layers: list[list[ArraySpec]] = []
    for array in spec.arrays:
        if len(array.shape) > 1 and 0 not in array.shape:
            if layers and array.shape[1] % layers[-1][0].shape[0]:
                raise _no_chain(array, f"does not take {layers[-1][0].shape[0]} inputs")
            layers.append([array])
        elif layers and array.shape == layers[-1][0].shape[:1] and len(layers[-1]) == 1:
            layers[-1].append(array)
        else:
            raise _no_chain(array, f"of shape {array.shape} is no layer's weights or biases")
    if len(layers) < 2:
        raise ConfigError("sub-models need a model with a hidden layer")
    yield from layers


def _no_chain(array: ArraySpec, why: str) -> ConfigError:
    return ConfigError(
        f"sub-models need a model that is a chain of layers, such as mlp and cnn: "
        f"array {array.name!r} {why}"
    )


def _check(width: float, share: float) -> None:
    if not 0.0 < width < 1.0:
        raise ConfigError(f"width = {width} is not between 0 and 1")
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"share = {share} is not in (0, 1]")
