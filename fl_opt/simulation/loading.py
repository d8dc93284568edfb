"""How a ClientApp reaches another process: by where it is imported from, or pickled."""

from __future__ import annotations

import importlib
import pickle
from typing import TypeAlias

from fl_opt.errors import ConfigError
from fl_opt.simulation.answering import CallableClientApp

ClientAppSource: TypeAlias = CallableClientApp | str
"""A ClientApp, or where it is: ``"package.module:attribute"``."""


def load_app(source: ClientAppSource) -> CallableClientApp:
    """Return the app, imported if need be.

    Raises
    ------
    ConfigError
        If it is not there, or nothing that can be called.
    """
    if not isinstance(source, str):
        return source
    module, colon, attribute = source.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(
            f"client app {source!r} is not of the form 'package.module:attribute'"
        )
    try:
        app: CallableClientApp = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"client app {source!r} cannot be loaded: {error}") from error
    if not callable(app):
        raise ConfigError(f"client app {source!r} is {type(app).__name__}, not a ClientApp")
    return app


def pack_app(source: ClientAppSource) -> bytes:
    """Return what :func:`unpack_app` makes the app of, in another process.

    Raises
    ------
    ConfigError
        If the app can be neither imported nor pickled.
    """
    load_app(source)
    try:
        return pickle.dumps(source)
    except Exception as error:  # whatever its parts raise
        raise ConfigError(
            f"the client app cannot be pickled for worker processes ({error}): "
            "say where it is, 'package.module:attribute'"
        ) from error


def unpack_app(packed: bytes) -> CallableClientApp:
    """Return the app that :func:`pack_app` was given.

    Raises
    ------
    ConfigError
        If this process cannot load it.
    """
    try:
        source: ClientAppSource = pickle.loads(packed)  # noqa: S301 (made by our own parent)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"a worker process cannot load the client app: {reason}") from error
    return load_app(source)
