"""How a client is to answer, as the server tells it with each message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl_opt.errors import ExchangeError
from fl_opt.exchange.records import MetaValue, meta_value
from fl_opt.exchange.submodels import NO_SUBMODELS


@dataclass(frozen=True)
class ReplyRules:
    """Specs of codec and feedback, the run's seed, and what else is asked.

    Parameters
    ----------
    codec, feedback : str
        Specs.
    seed : int
        Of the run.
    participants : int
        Clients asked in the round; 0 if that is not known.
    evaluate : bool
        Whether the client is to evaluate the model it receives before it trains.
    submodels : str
        Spec of who trains which part of the model; see :mod:`fl_opt.exchange.submodels`.
    measure : bool
        Whether the client is to say how large its update was before it was coded.
    spans : bool
        Whether it is to say what its work consisted of; see :mod:`fl_opt.spans`.
    """

    codec: str
    feedback: str
    seed: int
    participants: int = 0
    evaluate: bool = False
    submodels: str = NO_SUBMODELS
    measure: bool = False
    spans: bool = False

    def to_meta(self) -> dict[str, MetaValue]:
        """Return the entries that go beside a payload."""
        whole = self.submodels == NO_SUBMODELS
        return {
            **({} if whole else {"submodels": self.submodels}),
            **({"measure": True} if self.measure else {}),
            **({"spans": True} if self.spans else {}),
            "codec": self.codec,
            "feedback": self.feedback,
            "seed": self.seed,
            "participants": self.participants,
            "evaluate": self.evaluate,
        }

    @classmethod
    def from_meta(cls, meta: Mapping[str, object]) -> ReplyRules:
        """Read what :meth:`to_meta` wrote.

        Raises
        ------
        ExchangeError
            If an entry is missing or of the wrong type.
        """
        participants = meta_value(meta, "participants", int)
        if participants < 0:
            raise ExchangeError(f"participants = {participants} is negative")
        return cls(
            codec=meta_value(meta, "codec", str),
            feedback=meta_value(meta, "feedback", str),
            seed=meta_value(meta, "seed", int),
            participants=participants,
            evaluate=meta_value(meta, "evaluate", bool),
            submodels=meta_value({"submodels": NO_SUBMODELS, **meta}, "submodels", str),
            measure=meta_value({"measure": False, **meta}, "measure", bool),
            spans=meta_value({"spans": False, **meta}, "spans", bool),
        )
