"""Compressed, measured federated learning on Flower.

The public names, each loaded when it is first asked for: ``import fl_opt`` loads neither
torch nor flwr.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl_opt.client import CompressedNumPyClient, compression_mod
    from fl_opt.codecs import build_codec, decode
    from fl_opt.config import Settings, load_settings
    from fl_opt.errors import (
        CodecError,
        ConfigError,
        DataError,
        ExchangeError,
        FlOptError,
        ModelError,
        PayloadError,
    )
    from fl_opt.params import ParamSpec

__version__ = "0.1.0"

__all__ = [
    "CodecError",
    "CompressedNumPyClient",
    "ConfigError",
    "DataError",
    "ExchangeError",
    "FlOptError",
    "ModelError",
    "ParamSpec",
    "PayloadError",
    "Settings",
    "__version__",
    "build_codec",
    "compression_mod",
    "decode",
    "load_settings",
]

_HOMES = {
    "fl_opt.client": ("CompressedNumPyClient", "compression_mod"),
    "fl_opt.codecs": ("build_codec", "decode"),
    "fl_opt.config": ("Settings", "load_settings"),
    "fl_opt.errors": (
        "CodecError",
        "ConfigError",
        "DataError",
        "ExchangeError",
        "FlOptError",
        "ModelError",
        "PayloadError",
    ),
    "fl_opt.params": ("ParamSpec",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
