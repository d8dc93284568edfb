"""Reading what takes a client to a model: masks, updates, and the exact arrays at the end."""

from __future__ import annotations

from fl_opt.errors import PayloadError
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.exact import read_exact
from fl_opt.exchange.masks import Move, read_move
from fl_opt.exchange.reference import ExactArrays
from fl_opt.params import ParamSpec
from fl_opt.wire import FrameKind, Reader, split_frames


def read_moves(
    payload: bytes, spec: ParamSpec, alive: Coverage | None = None
) -> tuple[list[Move], ExactArrays]:
    """Read any number of moves and, if they stand behind them, the exact arrays.

    Parameters
    ----------
    payload : bytes
        At least one frame.
    spec : ParamSpec
        Of the model.
    alive : Coverage or None
        What is not pruned in the model that the payload builds on.

    Returns
    -------
    moves : list of Update or Coverage
    exact : mapping of str to ndarray
        Empty if there are none.

    Raises
    ------
    PayloadError
        On anything that is not exactly right.
    """
    moves: list[Move] = []
    exact: ExactArrays | None = None
    for kind, body in split_frames(payload):
        if exact is not None:
            raise PayloadError("payload goes on behind the exact arrays")
        reader = Reader(body)
        if kind is not FrameKind.EXACT:
            move, alive = read_move(kind, reader, spec, alive)
            moves.append(move)
            continue
        if not spec.exact_arrays:
            raise PayloadError("payload holds exact arrays, the model has none")
        exact = read_exact(reader, spec)
        reader.finish()
    return moves, exact or {}


def alive_after(payload: bytes, spec: ParamSpec, alive: Coverage | None) -> Coverage | None:
    """Return what is not pruned behind a payload's masks; no update is decoded."""
    for kind, body in split_frames(payload):
        if kind is FrameKind.MASK:
            _, alive = read_move(kind, Reader(body), spec, alive)
    return alive
