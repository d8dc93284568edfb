"""A client's reply as the server reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import Update
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.blob import decode_blob
from fl_opt.exchange.coverage import Coverage
from fl_opt.params import ParamSpec

_LONGEST = 64


@dataclass(frozen=True)
class Answer:
    """What stands beside a reply's payload.

    Attributes
    ----------
    held : str
        Fingerprint of the reference that the client holds now; empty for none.
    need : str
        Why the client could not do what was asked; empty if it could.
    seed : bool
        Whether the client can build the first model from the seed, as far as it knows.
    update : int
        Id of the update that the reply carries.
    version : int
        Of the model that the update is a difference against.
    spec : str
        Fingerprint of the model's description.
    returned, lost : bool
        See :class:`~fl_opt.exchange.uplink.Turn`.
    residual_norm : float
        L2 norm of what the client has not sent; 0 if it keeps nothing.
    width : float
        Width of the sub-model that the client has trained; 1 for the whole model.
    update_norm : float
        L2 norm of the update before it was coded; 0 if the client does not say.
    """

    held: str
    need: str = ""
    seed: bool = True
    update: int = 0
    version: int = 0
    spec: str = ""
    returned: bool = False
    lost: bool = False
    residual_norm: float = 0.0
    width: float = 1.0
    update_norm: float = 0.0

    @classmethod
    def of(cls, content: RecordDict) -> Answer:
        """Read it from a reply.

        Raises
        ------
        ExchangeError
            If an entry is missing or of the wrong type.
        """
        meta = records.find_meta(content)
        held = records.meta_value(meta, "reference", str)[:_LONGEST]
        if meta.get("need"):
            need = " ".join(records.meta_value(meta, "need", str).split())[:200]
            return cls(held, need=need, seed=records.meta_value(meta, "seed", bool))
        return cls(
            held,
            update=records.meta_value(meta, "update", int),
            version=records.meta_value(meta, "version", int),
            spec=records.meta_value(meta, "spec", str)[:_LONGEST],
            returned=bool(meta.get("returned", False)),
            lost=bool(meta.get("lost", False)),
            residual_norm=_norm(meta, "residual-norm"),
            width=records.meta_value({"width": 1.0, **meta}, "width", float),
            update_norm=_norm(meta, "update-norm"),
        )


@dataclass(frozen=True)
class UplinkUpdate:
    """A client's update as the server received it.

    Attributes
    ----------
    update : Update
        Of the whole model.
    exact : dict of str to ndarray
        The arrays beside it.
    part : Coverage or None
        The sub-model that was trained; None: the whole model.
    """

    update: Update
    exact: dict[str, NDArray[Any]]
    part: Coverage | None = None


def decode_update(
    content: RecordDict,
    answer: Answer,
    spec: ParamSpec,
    *,
    version: int,
    alive: Coverage | None = None,
    part: Coverage | None = None,
) -> UplinkUpdate:
    """Decode the update of a reply.

    Parameters
    ----------
    content : RecordDict
        Of the reply.
    answer : Answer
        What stands beside it.
    spec : ParamSpec
        The model's.
    version : int
        Of the model that the client was asked to start from.
    alive : Coverage or None
        What was not pruned of that model; None: nothing was.
    part : Coverage or None
        The sub-model that the client has trained; None: the whole model.

    Raises
    ------
    ExchangeError
        If the update is of another model or version.
    PayloadError
        If the payload is not exactly right.
    """
    if answer.spec != spec.fingerprint:
        raise ExchangeError(
            f"reply of another model: {answer.spec!r}, expected {spec.fingerprint}"
        )
    if answer.version != version:
        raise ExchangeError(f"reply to model version {answer.version}, expected {version}")
    covers = alive & part if alive is not None and part is not None else alive or part
    return UplinkUpdate(*decode_blob(records.find_payload(content), spec, covers), part)


def _norm(meta: Mapping[str, object], key: str) -> float:
    value = meta.get(key, 0.0)
    return value if isinstance(value, float) and 0.0 <= value < math.inf else 0.0
