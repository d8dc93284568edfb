"""A user's mistake is one line on standard error and exit code 2, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from fl_opt.errors import FlOptError


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Turn errors of fl-opt and of files into a line and an exit code."""
    try:
        yield
    except (FlOptError, OSError) as error:
        typer.echo(f"error: {' '.join(_reason(error).split())}", err=True)
        raise typer.Exit(2) from None


def _reason(error: FlOptError | OSError) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
