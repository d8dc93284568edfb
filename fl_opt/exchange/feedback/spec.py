"""Feedback specs: ``"residual(decay=0.9)"`` to an object."""

from __future__ import annotations

from typing import Final

from fl_opt.codecs.grammar import Cursor, construct
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
    cursor = Cursor(spec, "feedback spec")
    known = ", ".join(FEEDBACKS)
    start, name, arguments = cursor.call(f"a name is expected: {known}")
    if name not in FEEDBACKS:
        raise cursor.error(f"unknown feedback {name!r}; known are {known}", start)
    feedback: Feedback = construct(cursor, start, FEEDBACKS[name], arguments)
    cursor.finish("the end is expected")
    return feedback
