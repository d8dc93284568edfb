"""Feedback specs: ``"residual(decay=0.9)"`` to an object."""

from __future__ import annotations

from typing import Final

from fl_opt.codecs.grammar import build_named
from fl_opt.exchange.feedback.base import Feedback, NoFeedback
from fl_opt.exchange.feedback.dgc import Dgc
from fl_opt.exchange.feedback.residual import Residual, StepAhead

FEEDBACKS: Final[dict[str, type[Feedback]]] = {
    kind.name: kind for kind in (NoFeedback, Residual, StepAhead, Dgc)
}


def build_feedback(spec: str) -> Feedback:
    """Build the feedback that a spec describes.

    Parameters
    ----------
    spec : str
        A name of :data:`FEEDBACKS` and its arguments, such as ``"residual(decay=0.9)"``, in the
        grammar of :mod:`fl_opt.codecs.grammar`.

    Raises
    ------
    ConfigError
        Names the position in the spec (from 1) and the alternatives.
    """
    return build_named(spec, "feedback", FEEDBACKS)
