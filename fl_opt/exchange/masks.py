"""Masks in a payload: which entries of the model are pruned from here on.

A mask stands before the update that goes with it. Entries that it leaves out become zero, and
updates behind it hold the others only::

    way       byte    bit 0: what follows are those that stay, else those that go
                      bit 1: they are counted among all entries, else among those that stood
    size      varint  number of entries that are counted
    positions         as in an update

As pruned entries stay pruned, a mask tells only which of the others go. It takes nearly its
entropy: 0.72 bits for each of the entries counted, where a fifth of them stays.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fl_opt.codecs import Update, code, read_update
from fl_opt.errors import PayloadError
from fl_opt.exchange.coverage import Coverage, Mask
from fl_opt.params import ParamSpec
from fl_opt.wire import FrameKind, Reader, Writer

_STAY: Final = 1
_OF_ALL: Final = 2

Move = Update | Coverage
"""What a frame does to a model: an update is added, a mask sets what it leaves out to zero."""


def encode_mask(before: Coverage | None, after: Coverage | None, size: int) -> bytes:
    """Return the frame that leads from one mask to another; empty if they are the same.

    Parameters
    ----------
    before, after : Coverage or None
        What is not pruned; None: nothing is.
    size : int
        Entries of the model.
    """
    if before == after:
        return b""
    stands = (before or Coverage.all_of(size)).mask
    stays = (after or Coverage.all_of(size)).mask
    way = 0
    if (stays & ~stands).any():
        way = _OF_ALL
    else:
        stays = stays[stands]
    if 2 * np.count_nonzero(stays) < stays.size:
        way |= _STAY
    writer = Writer()
    writer.byte(way)
    writer.varint(stays.size)
    told = np.flatnonzero(stays if way & _STAY else ~stays)
    code.write_positions(writer, told, stays.size, code.Auto.position_methods)
    return writer.to_frame(FrameKind.MASK)


def read_move(
    kind: FrameKind, reader: Reader, spec: ParamSpec, alive: Coverage | None
) -> tuple[Move, Coverage | None]:
    """Read a frame, and return what it does and what is not pruned after it.

    Parameters
    ----------
    kind : FrameKind
        ``UPDATE`` or ``MASK``.
    reader : Reader
        Of the body, up to whose end it reads.
    spec : ParamSpec
        Of the model.
    alive : Coverage or None
        What is not pruned before it; None: nothing is.

    Raises
    ------
    PayloadError
        On anything that is not exactly right.
    """
    if kind is FrameKind.MASK:
        mask = _read_mask(reader, spec.size, alive)
        reader.finish()
        return mask, None if mask.count == spec.size else mask
    update = read_covered(reader, spec, alive)
    reader.finish()
    return update, alive


def read_covered(reader: Reader, spec: ParamSpec, covers: Coverage | None) -> Update:
    """Read the body of an update that covers a part of the model (None: all of it)."""
    if covers is None:
        return read_update(reader, spec.size)
    return covers.scatter(read_update(reader, covers.count))


def _read_mask(reader: Reader, size: int, alive: Coverage | None) -> Coverage:
    way = reader.byte()
    if way > _STAY + _OF_ALL:
        raise PayloadError(f"malformed payload: unknown way {way} to tell a mask")
    stood: Mask = np.ones(size, np.bool_)
    if alive is not None and not way & _OF_ALL:
        stood = alive.mask
    expected = int(np.count_nonzero(stood))
    counted = reader.varint()
    if counted != expected:
        raise PayloadError(f"payload has a mask of {counted} entries, expected {expected}")
    told = np.zeros(expected, np.bool_)
    told[code.read_positions(reader, reader.byte(), expected)] = True
    mask = np.zeros(size, np.bool_)
    mask[stood] = told if way & _STAY else ~told
    if not mask.any():
        raise PayloadError("malformed payload: a mask leaves nothing")
    return Coverage.of(mask)
