"""From settings to a downlink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fl_opt.errors import ConfigError
from fl_opt.exchange.downlink.auto import AutoDownlink
from fl_opt.exchange.downlink.base import Downlink
from fl_opt.exchange.downlink.full import FullDownlink
from fl_opt.exchange.downlink.mover import build_mover
from fl_opt.exchange.downlink.per_client import PerClientDownlink
from fl_opt.exchange.downlink.shared import SharedDownlink

MODES: Final = ("full", "shared", "per-client", "auto")
_MEGA: Final = 1_000_000


@dataclass(frozen=True)
class DownlinkOptions:
    """How the model travels to clients.

    Attributes
    ----------
    mode : {"full", "shared", "per-client", "auto"}
    codec : str
        Spec: of the whole model (``full``), or of differences.
    first_contact : {"seed", "snapshot"}
        What a new client begins with: a model that it builds from the run's seed, or a
        snapshot.
    catch_up : {"sum", "chain"}
        Whether the shared mode may send missed steps added up.
    memory_mb : int
        Limit of the references (``per-client``) and past steps (``shared``) that the server
        keeps, in 10^6 bytes each.
    """

    mode: str = "full"
    codec: str = "fp32"
    first_contact: str = "snapshot"
    catch_up: str = "sum"
    memory_mb: int = 1000


def build_downlink(settings: DownlinkOptions, *, seed: int) -> Downlink:
    """Build the downlink that settings describe.

    Raises
    ------
    ConfigError
        If a setting is not one of those known, or the codec's spec is wrong or does not fit.
    """
    _check("mode", settings.mode, MODES)
    _check("first-contact", settings.first_contact, ("seed", "snapshot"))
    _check("catch-up", settings.catch_up, ("sum", "chain"))
    if settings.memory_mb < 1:
        raise ConfigError(f"downlink.memory-mb = {settings.memory_mb} is not at least 1")
    if settings.mode == "full":
        return FullDownlink(settings.codec)
    from_seed = settings.first_contact == "seed"
    limit = settings.memory_mb * _MEGA

    def shared() -> SharedDownlink:
        return SharedDownlink(
            build_mover(settings.codec, seed=seed),
            from_seed=from_seed,
            history_bytes=limit,
            sums=settings.catch_up == "sum",
        )

    def per_client() -> PerClientDownlink:
        return PerClientDownlink(
            settings.codec, seed=seed, from_seed=from_seed, memory_limit=limit
        )

    if settings.mode == "shared":
        return shared()
    if settings.mode == "per-client":
        return per_client()
    return AutoDownlink(shared(), per_client())


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"downlink.{name} = {value!r} is not one of {', '.join(known)}")
