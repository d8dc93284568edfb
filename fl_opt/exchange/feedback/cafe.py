"""CAFe: coding against a prediction, for clients that remember nothing.

Compressed Aggregate Feedback (Ortega, Huang, Li and Jafarkhani 2025, arXiv 2512.22623): with
the mean update of the last round as the prediction ``p``, a client sends ``C(delta - p)`` and
the server adds ``p`` back. Any vector that both ends hold to the bit will do as ``p``; the
nearer it is to the updates, the less is left to code.

No spec leads here, because the exchange has no ``p`` that costs less than it saves. Sent as it
is, it doubles the downlink: 32 bits a parameter to improve an uplink of less than one. Sent
through the uplink's own codec it is cheap, but in trial runs it then helped next to nothing. A
client could take it from the models of two rounds, but then it remembers one of them, and is
better served by a residual. Where both ends have such a vector, these two functions go around
the codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fl_opt.codecs import Update
from fl_opt.codecs.update import Accumulator, Vector
from fl_opt.exchange.feedback.base import State


@dataclass(frozen=True)
class Cafe:
    """The client's side: its state is ``{"prediction": p}``, from outside, and none is kept.

    Without a prediction, as in the first round, the update is sent as it is.
    """

    name: ClassVar[str] = "cafe"
    arrays: ClassVar[tuple[str, ...]] = ()
    unsent: ClassVar[str] = ""

    def start(self, reference: Vector, state: State) -> Vector:
        """Return the reference."""
        return reference

    def before(
        self, delta: Vector, state: State, *, participants: int = 0
    ) -> tuple[Vector, State]:
        """Return ``delta - p``, in ``delta``'s own memory."""
        if "prediction" in state:
            delta -= state["prediction"]
        return delta, {}

    def after(self, vector: Vector, sent: Update, state: State) -> State:
        """Return nothing."""
        return {}

    def take_back(self, sent: Update, state: State) -> State:
        """Return nothing."""
        return {}


def add_prediction(accumulator: Accumulator, prediction: Vector, weight: float) -> None:
    """Add back what clients left out: the server's side, once a round.

    Parameters
    ----------
    accumulator : ndarray of float32 or float64, shape (size,)
        The weighted sum of the updates received; changed in place.
    prediction : ndarray of float32, shape (size,)
        What each of the clients subtracted.
    weight : float
        The sum of these clients' weights.
    """
    accumulator += prediction * accumulator.dtype.type(weight)
