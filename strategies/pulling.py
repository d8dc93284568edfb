"""Looking for replies without being held up by one that never comes whole.

A SuperLink shows a reply before its arrays have arrived, and Flower's Grid then waits for
them: as long as a slow upload takes, or, where the connection broke in the middle of it, for
the three minutes until the SuperLink gives the upload up. Meanwhile it reads nothing else, and
no timeout of a round could be kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

from flwr.app import Message
from flwr.serverapp import Grid

GRACE: Final = 1.0
"""Seconds that a look may take before it goes on in the background."""

_Found: TypeAlias = "list[Message] | BaseException"


class Pulling:
    """Pulls replies in threads of its own, so that whoever asks waits a second at most.

    What a look in the background finds is handed out by a later one. Until then nobody else
    looks for the same replies: a SuperLink answers a second request for one by saying that
    there is none. So a broken upload costs the replies of one round, and not the round's end.

    Parameters
    ----------
    grid : Grid
        May be used by several threads, as Flower's is.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._found: SimpleQueue[tuple[frozenset[str], _Found]] = SimpleQueue()
        self._open: set[frozenset[str]] = set()

    def pull(self, message_ids: Iterable[str], grace: float = GRACE) -> list[Message]:
        """Return the replies that have come, in order of arrival.

        Parameters
        ----------
        message_ids : iterable of str
            Of the messages whose replies are wanted.
        grace : float
            Seconds after which to return with what is there.

        Raises
        ------
        Exception
            What the grid has raised.
        """
        wanted = frozenset(message_ids).difference(*self._open)
        if wanted:
            self._open.add(wanted)
            threading.Thread(target=self._look, args=(wanted,), daemon=True).start()
        replies: list[Message] = []
        deadline = time.monotonic() + grace
        while self._open:
            try:
                left = max(deadline - time.monotonic(), 0.0)
                asked, found = self._found.get(timeout=0.0 if replies else left)
            except Empty:
                break
            if isinstance(found, BaseException) and replies:
                self._found.put((asked, found))  # for the next call: these are not lost
                break
            self._open.discard(asked)
            if isinstance(found, BaseException):
                raise found
            replies += found
            if asked == wanted:
                break
        return replies

    def _look(self, wanted: frozenset[str]) -> None:
        try:
            self._found.put((wanted, list(self._grid.pull_messages(wanted))))
        except BaseException as error:  # raised where it is asked for
            self._found.put((wanted, error))
