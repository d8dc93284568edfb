"""What a spec may name, for people and programs that list it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fl_opt.codecs import spec
from fl_opt.codecs.grammar import parameters, type_name


@dataclass(frozen=True)
class Argument:
    """What stands in the brackets of a spec.

    Attributes
    ----------
    name, type : str
    default : int, float, str or None
        None: it must be given.
    """

    name: str
    type: str
    default: int | float | str | None

    def __str__(self) -> str:
        """Write it as a signature does: ``rounds: int``, ``gamma: float = 0.5``."""
        default = "" if self.default is None else f" = {self.default}"
        return f"{self.name}: {self.type}{default}"


@dataclass(frozen=True)
class Choice:
    """Something that a setting, or a place in a codec, may name.

    Attributes
    ----------
    setting, name : str
        Key in the run config or part of a codec, and what may stand there.
    about : str
        One sentence.
    arguments : tuple of Argument
        In the order in which they may be given without their names.
    """

    setting: str
    name: str
    about: str
    arguments: tuple[Argument, ...]


def choices(tables: Mapping[str, Mapping[str, type]]) -> list[Choice]:
    """Return all that tables of dataclasses have, table by table."""
    return [
        Choice(setting, name, _about(kind), tuple(_arguments(kind)))
        for setting, kinds in tables.items()
        for name, kind in kinds.items()
    ]


def codec_choices() -> list[Choice]:
    """Return all stages of codecs and all presets, in the order of a spec."""
    stages = choices(
        {
            "rate": spec.RATES,
            "transform": spec.TRANSFORMS,
            "select": spec.SELECTIONS,
            "quantize": spec.QUANTIZERS,
            "code": spec.CODERS,
        }
    )
    return stages + [Choice("preset", name, text, ()) for name, text in spec.PRESETS.items()]


def _about(kind: type) -> str:
    """Return the first line of a docstring."""
    return (kind.__doc__ or "").partition("\n")[0].replace("``", "`")


def _arguments(kind: Any) -> Iterator[Argument]:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for name, hint in parameters(kind):
        default = defaults[name]
        given = None if default is dataclasses.MISSING else default
        yield Argument(name, type_name(hint), given)
