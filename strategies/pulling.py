"""Looking for replies without being held up by one that never comes whole.

A SuperLink shows a reply before its arrays have arrived, and Flower's Grid then waits for
them: as long as a slow upload takes, or, where the connection broke in the middle of it, for
the three minutes until the SuperLink gives the upload up. Meanwhile it reads nothing else, and
no timeout of a round could be kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

from flwr.app import Message
from flwr.serverapp import Grid

GRACE: Final = 1.0
"""Seconds that a look may take before it goes on in the background."""
MOST_OPEN: Final = 16
"""Looks in the background at most; then one has to end before there is another."""

_Found: TypeAlias = "list[Message] | BaseException"


class Pulling:
    """Pulls replies in threads of its own, so that whoever asks waits a second at most.

    What a look in the background finds is handed out by a later one. Messages that one look
    has taken are not shown to another, so nothing comes twice.

    Parameters
    ----------
    grid : Grid
        May be used by several threads, as Flower's is.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._found: SimpleQueue[_Found] = SimpleQueue()
        self._open = 0

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
        if self._open < MOST_OPEN:
            look = threading.Thread(target=self._look, args=(list(message_ids),), daemon=True)
            self._open += 1
            look.start()
        replies: list[Message] = []
        while self._open:
            try:  # the first may take its time, and what else is there comes with it
                found = self._found.get(timeout=0.0 if replies else max(grace, 0.0))
            except Empty:
                break
            self._open -= 1
            if isinstance(found, BaseException):
                raise found
            replies += found
            if not found:
                break
        return replies

    def _look(self, message_ids: list[str]) -> None:
        try:
            self._found.put(list(self._grid.pull_messages(message_ids)))
        except BaseException as error:  # raised where it is asked for
            self._found.put(error)
