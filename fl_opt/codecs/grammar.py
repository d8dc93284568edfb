"""What all specs are written in: names with arguments, and how they become objects.

Grammar::

    call      = name [ "(" [ argument { "," argument } ] ")" ]
    argument  = [ name "=" ] ( number | word )

A call builds a dataclass: its arguments are the fields, by position or by name, converted to
the fields' types. Every mistake is a ConfigError that names its position (from 1) in the spec.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeVar

from fl_opt.errors import ConfigError

T = TypeVar("T")

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_VALUE: Final = re.compile(r"[^\s,()=|]+")
_SPACE: Final = re.compile(r"\s*")

Argument = tuple[int, str | None, str]
"""Position in the text, keyword if there is one, and value."""


class Cursor:
    """Walks through the text of a spec.

    Parameters
    ----------
    text : str
    kind : str
        What the text is, for errors, such as ``"codec spec"``.
    """

    def __init__(self, text: str, kind: str) -> None:
        self.text = text
        self.kind = kind
        self.at = 0

    def error(self, reason: str, at: int | None = None) -> ConfigError:
        """Return the error that says what is wrong here, or at another position."""
        position = (self.at if at is None else at) + 1
        return ConfigError(f"{self.kind} {self.text!r}, position {position}: {reason}")

    def take(self, symbol: str) -> bool:
        """Step over a symbol, if it comes next."""
        self._skip_space()
        if self.text.startswith(symbol, self.at):
            self.at += len(symbol)
            return True
        return False

    def call(self, expected: str) -> tuple[int, str, list[Argument]]:
        """Read a name and its arguments; ``expected`` says what ought to be here."""
        start, name = self._match(_NAME, expected)
        arguments = []
        if self.take("(") and not self.take(")"):
            arguments.append(self._argument())
            while self.take(","):
                arguments.append(self._argument())
            if not self.take(")"):
                raise self.error("')' or ',' is expected")
        return start, name, arguments

    def finish(self, expected: str) -> None:
        """Refuse anything that is left; ``expected`` says what ought to be here."""
        self._skip_space()
        if self.at < len(self.text):
            raise self.error(expected)

    def _argument(self) -> Argument:
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


def construct(cursor: Cursor, start: int, kind: type, arguments: list[Argument]) -> Any:
    """Build the object of a call.

    Parameters
    ----------
    cursor : Cursor
        For errors.
    start : int
        Where the call begins.
    kind : type
        A dataclass with a class variable ``name``.
    arguments : list of Argument

    Raises
    ------
    ConfigError
        If an argument is unknown, given twice or not valid.
    """
    fields = dict(parameters(kind))
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
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise cursor.error(f"{field.name!r} must be given; {_signature(kind)}", start)
    try:
        return kind(**values)
    except ConfigError as error:
        raise cursor.error(str(error), start) from None


def build_named(spec: str, what: str, kinds: Mapping[str, type[T]]) -> T:
    """Build the one thing that a spec names, such as ``"residual(decay=0.9)"``.

    Parameters
    ----------
    spec : str
        A name of ``kinds`` and its arguments.
    what : str
        What such a thing is called in errors.
    kinds : mapping of str to type
        Dataclasses by name.

    Raises
    ------
    ConfigError
        Names the position in the spec (from 1) and the alternatives.
    """
    cursor = Cursor(spec, f"{what} spec")
    known = ", ".join(kinds)
    start, name, arguments = cursor.call(f"a name is expected: {known}")
    if name not in kinds:
        raise cursor.error(f"unknown {what} {name!r}; known are {known}", start)
    built: T = construct(cursor, start, kinds[name], arguments)
    cursor.finish("the end is expected")
    return built


def parameters(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield name and type of each argument that a call of ``kind`` takes, in their order."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield field.name, hints[field.name]


def type_name(hint: Any) -> str:
    """Return how an argument's type is called in texts, such as ``int`` or ``one or two``."""
    words = typing.get_args(hint)
    return " or ".join(words) if words else str(hint.__name__)


def _convert(text: str, hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        if text not in typing.get_args(hint):
            raise ValueError(text)
        return text
    return hint(text)


def _signature(kind: Any) -> str:
    """Describe a call's arguments: ``uniform takes bits (int), block (int), ...``."""
    described = [f"{name} ({type_name(hint)})" for name, hint in parameters(kind)]
    return f"{kind.name!r} takes {', '.join(described) or 'no arguments'}"
