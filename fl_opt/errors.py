"""The exceptions of fl-opt.

::

    Exception
    └── FlOptError               anything this package raises on purpose
        ├── ConfigError          a setting, codec spec or command-line value is wrong
        ├── DataError            a dataset is missing or unusable
        ├── ModelError           arrays do not fit the model they are meant for
        ├── CodecError           a vector cannot be encoded (for example it holds NaN)
        ├── PayloadError         received bytes are not a valid payload
        ├── ExchangeError        a message breaks the protocol between server and client
        └── CheckpointError      the saved state of a run is missing, damaged or in use

Each message names the thing at fault, its value and what is allowed, and fits one line:
command-line tools print it as it is.
"""

from __future__ import annotations


class FlOptError(Exception):
    """Base class of every error that fl-opt raises on purpose."""


class ConfigError(FlOptError, ValueError):
    """A setting, codec spec or command-line value is wrong."""


class DataError(FlOptError, ValueError):
    """A dataset is missing, unreadable or unusable as asked."""


class ModelError(FlOptError, ValueError):
    """Arrays do not fit the model they are meant for, or a model cannot be built."""


class CodecError(FlOptError, ValueError):
    """A vector cannot be encoded.

    Parameters
    ----------
    message : str
        What is wrong.
    position : int, optional
        Index of the first offending entry of the vector, where there is one; callers
        that know the model turn it into the name of an array.
    """

    def __init__(self, message: str, *, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class PayloadError(FlOptError, ValueError):
    """Received bytes are not exactly a valid payload."""


class ExchangeError(FlOptError, ValueError):
    """A message breaks the protocol between server and client."""


class CheckpointError(FlOptError, ValueError):
    """The saved state of a run is missing, damaged, in use or cannot be written."""
