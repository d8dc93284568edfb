"""Codec specs: ``"topk(0.01) | ternary"`` to a :class:`~fl_opt.codecs.base.Codec`.

Grammar::

    spec      = preset | stage { "|" stage }
    stage     = name [ "(" [ argument { "," argument } ] ")" ]
    argument  = [ name "=" ] ( number | word )

Stages come in the order select, quantize, code; each may be left out once: everything is
selected, values stay single precision, and the cheapest code is found for each payload.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Any, Final, Literal

from fl_opt.codecs import code, quantize, select
from fl_opt.codecs.base import Codec
from fl_opt.errors import ConfigError

SELECTIONS: Final[dict[str, type]] = {kind.name: kind for kind in (select.All, select.TopK)}
QUANTIZERS: Final[dict[str, type]] = {
    kind.name: kind
    for kind in (
        quantize.Fp32,
        quantize.Fp16,
        quantize.Bf16,
        quantize.Uniform,
        quantize.Ternary,
    )
}
CODERS: Final[dict[str, type]] = {
    kind.name: kind for kind in (code.Auto, code.Raw, code.Pack, code.Rice)
}
PRESETS: Final[dict[str, str]] = {
    "none": "all | fp32 | raw",
    "int8": "all | uniform(bits=8)",
    "int4": "all | uniform(bits=4)",
    "stc": "topk(0.01) | ternary | rice",
}
"""Names for whole specs."""

_STAGES: Final = (("select", SELECTIONS), ("quantize", QUANTIZERS), ("code", CODERS))
_DEFAULTS: Final = ("all", "fp32", "auto")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_VALUE: Final = re.compile(r"[^\s,()=|]+")
_SPACE: Final = re.compile(r"\s*")


def build_codec(spec: str) -> Codec:
    """Build the codec that a spec describes.

    Parameters
    ----------
    spec : str
        Such as ``"topk(0.01) | ternary"`` or the name of a preset.

    Raises
    ------
    ConfigError
        Names the position in the spec (from 1) and the alternatives.
    """
    cursor = _Cursor(PRESETS.get(spec.strip(), spec))
    chosen: dict[int, Any] = {}
    last = -1
    while True:
        start, name, arguments = cursor.stage()
        rank = _rank(cursor, start, name)
        if rank <= last:
            raise cursor.error(
                f"{name!r} cannot come here: the order is select, quantize, code, each once",
                start,
            )
        chosen[rank] = _construct(cursor, start, _STAGES[rank][1][name], arguments)
        last = rank
        if not cursor.take("|"):
            break
    cursor.finish()
    stages = [
        chosen.get(rank) or table[_DEFAULTS[rank]]() for rank, (_, table) in enumerate(_STAGES)
    ]
    try:
        return Codec(spec.strip(), *stages)
    except ConfigError as error:
        raise ConfigError(f"codec spec {spec!r}: {error}") from None


class _Cursor:
    """Walks through the text of a spec."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, reason: str, at: int | None = None) -> ConfigError:
        position = (self.at if at is None else at) + 1
        return ConfigError(f"codec spec {self.text!r}, position {position}: {reason}")

    def take(self, symbol: str) -> bool:
        self._skip_space()
        if self.text.startswith(symbol, self.at):
            self.at += len(symbol)
            return True
        return False

    def stage(self) -> tuple[int, str, list[tuple[int, str | None, str]]]:
        start, name = self._match(_NAME, f"a stage is expected: {_alternatives()}")
        arguments = []
        if self.take("(") and not self.take(")"):
            arguments.append(self._argument())
            while self.take(","):
                arguments.append(self._argument())
            if not self.take(")"):
                raise self.error("')' or ',' is expected")
        return start, name, arguments

    def finish(self) -> None:
        self._skip_space()
        if self.at < len(self.text):
            raise self.error("'|' or the end is expected")

    def _argument(self) -> tuple[int, str | None, str]:
        start, value = self._match(_VALUE, "a number or word is expected")
        if not self.take("="):
            return start, None, value
        return start, value, self._match(_VALUE, f"a value for {value!r} is expected")[1]

    def _match(self, pattern: re.Pattern[str], otherwise: str) -> tuple[int, str]:
        self._skip_space()
        match = pattern.match(self.text, self.at)
        if match is None:
            raise self.error(otherwise)
        self.at = match.end()
        return match.start(), match.group()

    def _skip_space(self) -> None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]


def _rank(cursor: _Cursor, start: int, name: str) -> int:
    for rank, (_, table) in enumerate(_STAGES):
        if name in table:
            return rank
    if name in PRESETS:
        raise cursor.error(f"{name!r} is a preset and stands alone: {PRESETS[name]!r}", start)
    raise cursor.error(f"unknown stage {name!r}; known are {_alternatives()}", start)


def _alternatives() -> str:
    stages = "; ".join(f"{kind}: {', '.join(table)}" for kind, table in _STAGES)
    return f"{stages}; presets: {', '.join(PRESETS)}"


def _construct(
    cursor: _Cursor, start: int, kind: type, arguments: list[tuple[int, str | None, str]]
) -> Any:
    fields = dict(_parameters(kind))
    values: dict[str, Any] = {}
    for index, (at, keyword, text) in enumerate(arguments):
        if keyword is None and index >= len(fields):
            raise cursor.error(f"too many arguments; {_signature(kind)}", at)
        name = list(fields)[index] if keyword is None else keyword
        if name not in fields:
            raise cursor.error(f"unknown argument {name!r}; {_signature(kind)}", at)
        if name in values:
            raise cursor.error(f"argument {name!r} is given twice", at)
        try:
            values[name] = _convert(text, fields[name])
        except ValueError:
            raise cursor.error(
                f"{name} = {text} is not valid; {_signature(kind)}", at
            ) from None
    try:
        return kind(**values)
    except ConfigError as error:
        raise cursor.error(str(error), start) from None


def _parameters(kind: type) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield field.name, hints[field.name]


def _convert(text: str, hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        if text not in typing.get_args(hint):
            raise ValueError(text)
        return text
    return hint(text)


def _signature(kind: Any) -> str:
    """Describe a stage's arguments: ``uniform takes bits (int), block (int), ...``."""
    described = []
    for name, hint in _parameters(kind):
        words = typing.get_args(hint)
        described.append(f"{name} ({' or '.join(words) if words else hint.__name__})")
    return f"{kind.name!r} takes {', '.join(described) or 'no arguments'}"
