"""Client to server: the update, coded, and what becomes of updates that got lost.

A client keeps the last payload it has sent until it hears whether it was accepted. If not, the
payload is decoded and its mass returned to what the feedback keeps, as if it had never been
sent. If the server has accepted an update that the client knows nothing of, the client has lost
its state in between: what it keeps was part of that update, or is older, and is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from fl_opt.codecs import Encoder, build_codec
from fl_opt.codecs.update import Layout
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.blob import decode_blob, decode_covered, encode_blob
from fl_opt.exchange.client_state import ClientState
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.feedback import Feedback, State, build_feedback
from fl_opt.exchange.feedback.covered import narrow, widen
from fl_opt.exchange.feedback.store import load_state, store_state
from fl_opt.exchange.received import Received
from fl_opt.exchange.submodels import SubModel, cut
from fl_opt.params import NamedArrays
from fl_opt.seeds import derive_seed
from fl_opt.spans import span


@dataclass(frozen=True)
class Turn:
    """A client's turn to train: what it starts from, with its books in order.

    Attributes
    ----------
    received : Received
    kept : State
        What the feedback keeps, after the last update was settled.
    returned : bool
        Whether the last update was not accepted and its mass has been taken back.
    lost : bool
        Whether an update was accepted that this client does not remember.
    width : float
        Of the sub-model that the client trains; 1 for the whole model.
    """

    received: Received
    kept: State
    returned: bool
    lost: bool
    width: float = 1.0

    @cached_property
    def part(self) -> SubModel | None:
        """The sub-model that is trained; None: the whole model."""
        received = self.received
        if self.width == 1.0:
            return None
        return cut(received.spec, received.rules.submodels, self.width, received.version)

    @cached_property
    def covers(self) -> Coverage | None:
        """What the update covers: what is trained and not pruned; None: everything."""
        alive, part = self.received.reference.alive, self.part
        if alive is None or part is None:
            return alive or (part.covers if part else None)
        return alive & part.covers

    def start_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the named arrays that training starts from: copies, free to be changed."""
        if self.part is None:
            return self.received.arrays(self._start())
        return self.part.spec.unflatten(self.part.covers.gather(self._start()))

    def finish(
        self, trained: NamedArrays, state: RecordDict, *, client_id: int
    ) -> tuple[bytes, dict[str, records.MetaValue]]:
        """Encode what the client learned, and replace its state.

        Parameters
        ----------
        trained : mapping of str to ndarray
            What training made of :meth:`start_arrays`.
        state : RecordDict
            The client's ``context.state``. It is changed only if encoding succeeds.
        client_id : int
            Makes the randomness of different clients independent.

        Returns
        -------
        payload : bytes
        meta : dict
            What goes beside it.

        Raises
        ------
        ModelError
            If ``trained`` has other names or shapes than the model received.
        CodecError
            If it holds NaN or infinity; the array is named.
        """
        received, rules, covers = self.received, self.received.rules, self.covers
        spec, feedback = received.spec, _feedback(rules.feedback)
        kept = self.kept if covers is None else narrow(self.kept, covers)
        with span("feedback"):
            vector, moved = feedback.before(
                self._learned(trained), kept, participants=rules.participants
            )
        with span("codec"):
            payload = encode_blob(
                spec,
                _codec(rules.codec),
                vector,
                spec.exact_part(trained),
                seed=derive_seed(rules.seed, "uplink", client_id, received.version),
                covers=covers,
                layout=self._layout,
            )
        with span("keep"):
            if feedback.arrays and covers is None:
                sent, _ = decode_blob(payload, spec)
                moved = feedback.after(vector, sent, moved)
            elif feedback.arrays and covers is not None:
                moved = feedback.after(vector, decode_covered(payload, covers), moved)
                moved = widen(moved, self.kept, covers, received.reference.alive)
            store_state(state, moved, spec)
        ClientState(
            spec=spec,
            reference=received.reference if received.keep else None,
            update=received.update,
            payload=payload,
            acknowledged=received.acknowledged,
            covers=covers,
            width=self.width,
        ).store(state)
        beside: dict[str, records.MetaValue] = {"returned": self.returned, "lost": self.lost}
        if rules.measure:
            beside["update-norm"] = float(np.linalg.norm(vector))
        if feedback.unsent:
            beside["residual-norm"] = float(np.linalg.norm(moved[feedback.unsent]))
        return payload, {**reply_meta(received), **beside, **_width_meta(self.width)}

    @property
    def _layout(self) -> Layout | None:
        """Shapes of what is encoded, where they are those of a whole sub-model."""
        whole = self.part is not None and self.received.reference.alive is None
        return self.part.spec.layout if self.part is not None and whole else None

    def _start(self) -> NDArray[np.float32]:
        feedback = _feedback(self.received.rules.feedback)
        reference, covers = self.received.reference.vector, self.covers
        if covers is None:
            return feedback.start(reference, self.kept)
        start = reference.copy()
        start[covers.positions] = feedback.start(
            covers.gather(reference), narrow(self.kept, covers)
        )
        return start

    def _learned(self, trained: NamedArrays) -> NDArray[np.float32]:
        """Return what training changed of all that the update covers."""
        part, covers, start = self.part, self.covers, self._start()
        if part is None:
            delta = self.received.spec.flatten(trained)
            delta -= start
            return delta if covers is None else covers.gather(delta)
        delta = part.spec.flatten(trained)
        delta -= part.covers.gather(start)
        alive = self.received.reference.alive
        return delta if alive is None else delta[part.covers.gather_mask(alive)]


def settle(
    received: Received, client: ClientState, state: RecordDict, *, width: float = 1.0
) -> Turn:
    """Settle a client's last update, and begin its turn.

    Parameters
    ----------
    received : Received
        With the id of the last update that the server has accepted.
    client : ClientState
        What the client remembers.
    state : RecordDict
        The client's ``context.state``; it is only read.
    width : float
        Of the sub-model that the client is to train; 1 for the whole model.

    Raises
    ------
    ConfigError
        If the model has no such sub-model.
    """
    feedback = _feedback(received.rules.feedback)
    kept: State = load_state(state, feedback, received.spec)
    last, accepted = client.update, received.acknowledged
    if accepted > last:
        return Turn(received, {}, returned=False, lost=True, width=width)
    if accepted == last or not client.payload or client.spec != received.spec:
        return Turn(received, kept, returned=False, lost=False, width=width)
    sent, _ = decode_blob(client.payload, received.spec, client.covers)
    kept = feedback.take_back(sent, kept)
    return Turn(received, kept, returned=bool(feedback.arrays), lost=False, width=width)


def resend(
    meta: Mapping[str, object], client: ClientState
) -> tuple[bytes, dict[str, records.MetaValue]] | None:
    """Return the update that is asked for again, and what goes beside it; None for a new one.

    That a message comes twice is seen before it is read: the client no longer holds what the
    message builds on.

    Parameters
    ----------
    meta : mapping
        What came beside the payload.
    client : ClientState

    Raises
    ------
    ExchangeError
        If the message is older than one that was answered already.
    """
    update = records.meta_value(meta, "update", int)
    if update > client.update or client.spec is None:
        return None
    if update < client.update or not client.payload:
        raise ExchangeError(
            f"message asks for update {update}, but {client.update} was sent already"
        )
    return client.payload, {
        "update": update,
        "version": records.meta_value(meta, "version", int),
        "spec": client.spec.fingerprint,
        "reference": client.reference.fingerprint if client.reference is not None else "",
        **_width_meta(client.width),
    }


def reply_meta(received: Received) -> dict[str, records.MetaValue]:
    """Return what goes beside every reply: what was asked, and what is held now."""
    return {
        "update": received.update,
        "version": received.version,
        "spec": received.spec.fingerprint,
        "reference": received.reference.fingerprint if received.keep else "",
    }


def _width_meta(width: float) -> dict[str, records.MetaValue]:
    return {} if width == 1.0 else {"width": width}


@lru_cache(maxsize=64)
def _codec(spec: str) -> Encoder:
    return build_codec(spec)


@lru_cache(maxsize=64)
def _feedback(spec: str) -> Feedback:
    return build_feedback(spec)
