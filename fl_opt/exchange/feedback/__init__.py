"""What a client remembers from round to round, to make up for what a codec leaves out.

Each kind is a small frozen object of settings with pure functions, state in and state out,
after the manner of optax's transformations. ``build_feedback("residual(decay=0.9)")`` builds
one from a spec; :mod:`fl_opt.exchange.feedback.store` keeps the state of any kind in a
client's ``context.state``.

=============  ==================================================================
``none``       what is left out is lost
``residual``   error feedback: it is added to the next update, decayed if wished
``step_ahead`` the same, and training starts a step ahead, along the residual
``dgc``        Deep Gradient Compression: momentum correction and factor masking
=============  ==================================================================

:mod:`fl_opt.exchange.feedback.cafe` is for clients that cannot remember anything.
"""

from fl_opt.exchange.feedback.base import Feedback, NoFeedback, State
from fl_opt.exchange.feedback.dgc import Dgc
from fl_opt.exchange.feedback.residual import Residual, StepAhead
from fl_opt.exchange.feedback.spec import FEEDBACKS, build_feedback

__all__ = [
    "FEEDBACKS",
    "Dgc",
    "Feedback",
    "NoFeedback",
    "Residual",
    "State",
    "StepAhead",
    "build_feedback",
]
