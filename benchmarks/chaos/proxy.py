"""A bad network between SuperNodes and SuperLink: a TCP proxy that delays, stalls and cuts."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import Self

from fl_opt.deployment.home import LOOPBACK

_CHUNK = 1 << 14
_STALL = (0.2, 1.0)  # seconds that a lost packet takes to be sent again: TCP's timeouts


class Proxy:
    """Passes connections on to a port of this machine.

    Attributes
    ----------
    delay : float
        Seconds by which each piece of up to 16 kB is held up.
    loss : float
        Probability that a piece is held up as if it had been lost and sent again.
    reset : float
        Probability that the connection ends at a piece.
    is_cut : bool
        Whether connections are refused; :meth:`cut` ends those that there are.
    """

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self._target = (LOOPBACK, target_port)
        self._random = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.heal()

    @property
    def address(self) -> str:
        """Where to connect."""
        return f"{LOOPBACK}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def heal(self) -> None:
        """Be a good network."""
        self.delay = self.loss = self.reset = 0.0
        self.is_cut = False

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        self.is_cut = True
        with self._lock:
            for link in self._links:
                link.end()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self.is_cut:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            link = _Link(client, server)
            with self._lock:
                self._links.add(link)
            for source, sink in ((client, server), (server, client)):
                pump = threading.Thread(
                    target=self._pump, args=(link, source, sink), daemon=True
                )
                pump.start()

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(_CHUNK):
                if self._random.random() < self.reset:
                    link.end()
                    break
                lost = self._random.random() < self.loss
                time.sleep(self.delay + (self._random.uniform(*_STALL) if lost else 0.0))
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)  # the other direction may go on
        except OSError:
            link.end()
        if link.is_over():
            with self._lock:
                self._links.discard(link)


class _Link:
    """Two connections that are passed on to each other, in two threads."""

    def __init__(self, *ends: socket.socket) -> None:
        self._ends = ends
        self._lock = threading.Lock()
        self._at_work = len(ends)

    def end(self) -> None:
        """Wake both threads: nothing more is passed on."""
        for one in self._ends:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def is_over(self) -> bool:
        """Note the end of a thread; the last one closes the connections."""
        with self._lock:
            self._at_work -= 1
            if not self._at_work:
                for one in self._ends:
                    one.close()
            return not self._at_work
