"""Seeds for everything random, all from the one seed of a run.

Each use of randomness (a client's split, its batches in a round, the first model, ...) gets
a seed of its own, derived from the run's seed and the use's name and place. Uses are then
independent of each other and of the order in which they happen: a client draws the same
batches whether it runs alone, among a hundred others or in another process.
"""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, purpose: str, *place: int) -> int:
    """Derive an independent seed.

    The words are hashed by numpy's :class:`~numpy.random.SeedSequence`, whose outputs for
    different inputs can be treated as independent.

    Parameters
    ----------
    seed : int
        The run's seed, in [0, 2**32).
    purpose : str
        What the seed is for, such as ``"train"``.
    *place : int
        Where it is used, such as partition id and round; each in [0, 2**32).

    Returns
    -------
    int
        In [0, 2**63), which numpy and torch both take. The same on every machine.
    """
    # The length is a word too: SeedSequence fills up with zeros, so (1,) would equal (1, 0).
    words = [seed, zlib.crc32(purpose.encode()), len(place), *place]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
