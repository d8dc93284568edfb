"""What every kind of feedback does, and the kind that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from fl_opt.codecs import Update
from fl_opt.codecs.update import Vector

State = Mapping[str, Vector]
"""Named float32 vectors, all of the model's size. Empty before a client's first round."""


class Feedback(Protocol):
    """A rule for what is encoded instead of the bare update, and for what is remembered.

    A round goes ``start``, training, ``before``, encoding, ``after``. All are functions of
    their arguments alone; a round that fails on the way leaves the state as it was. Vectors of
    the state that is kept are only read. What is made on the way is used up: ``before`` may
    write into ``delta``, ``after`` into ``vector`` and into the state from ``before``.
    """

    name: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]]
    """Names of the vectors that ``after`` returns."""
    unsent: ClassVar[str]
    """Which of them holds what was not sent; empty if nothing is kept."""

    def start(self, reference: Vector, state: State) -> Vector:
        """Return what training starts from; the update is the difference against it.

        Parameters
        ----------
        reference : ndarray of float32, shape (size,)
            The model received; it is only read, and may be returned.
        state : mapping of str to ndarray
            What the last ``after`` returned, or empty.
        """

    def before(
        self, delta: Vector, state: State, *, participants: int = 0
    ) -> tuple[Vector, State]:
        """Return the vector to encode, and what ``after`` must know.

        Parameters
        ----------
        delta : ndarray of float32, shape (size,)
            What training changed; it may be overwritten.
        state : mapping of str to ndarray
            What the last ``after`` returned, or empty.
        participants : int
            Clients that were asked to train in this round; 0 if that is not known.
        """

    def after(self, vector: Vector, sent: Update, state: State) -> State:
        """Return the state to keep.

        Parameters
        ----------
        vector : ndarray of float32, shape (size,)
            What was to be encoded; it may be overwritten.
        sent : Update
            What the server decodes from the payload.
        state : mapping of str to ndarray
            What ``before`` returned; it may be overwritten.
        """

    def take_back(self, sent: Update, state: State) -> State:
        """Return the state as it would be had the last update not been sent.

        Parameters
        ----------
        sent : Update
            What was decoded from the last payload, which the server has not accepted.
        state : mapping of str to ndarray
            What the last ``after`` returned, or empty; it is only read.
        """


@dataclass(frozen=True)
class NoFeedback:
    """What the codec leaves out is lost, and nothing is kept."""

    name: ClassVar[str] = "none"
    arrays: ClassVar[tuple[str, ...]] = ()
    unsent: ClassVar[str] = ""

    def start(self, reference: Vector, state: State) -> Vector:
        """Return the reference."""
        return reference

    def before(
        self, delta: Vector, state: State, *, participants: int = 0
    ) -> tuple[Vector, State]:
        """Return the update as it is."""
        return delta, {}

    def after(self, vector: Vector, sent: Update, state: State) -> State:
        """Return nothing."""
        return {}

    def take_back(self, sent: Update, state: State) -> State:
        """Return nothing: an update that was not accepted is lost, too."""
        return {}
