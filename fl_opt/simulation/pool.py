"""Worker processes that run the ClientApp, so that clients of a round train side by side.

Clients do not belong to workers: the state of a client travels to whichever is free, and back.
Workers end with the pool, and with the process that it is in, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.connection import Connection, wait

from flwr.app import Context, Message

from fl_opt.errors import FlOptError
from fl_opt.simulation.answering import CallableClientApp, Outcome, answer
from fl_opt.simulation.identity import act_as_server
from fl_opt.simulation.isolation import portable_message, portable_records
from fl_opt.simulation.loading import ClientAppSource, load_app, pack_app, unpack_app
from fl_opt.simulation.resources import client_threads
from fl_opt.simulation.runner import Pending, Runner, as_runner


class WorkerPool(Runner):
    """Runs the app in processes of their own, each of which is started when it is needed.

    Parameters
    ----------
    app : ClientApp or str
        Best by where it is imported from; an app that is given as an object is pickled.
    workers : int
        Most processes, at least 1.

    Raises
    ------
    ConfigError
        If the app cannot be handed to another process.

    Notes
    -----
    Processes are spawned, not forked: a fork of a process that has used torch's threads may
    hang. They import the main module anew, so a script needs the usual
    ``if __name__ == "__main__":``.
    """

    def __init__(self, app: ClientAppSource, workers: int) -> None:
        packed = pack_app(app)
        context = multiprocessing.get_context("spawn")
        stop, self._stop = context.Pipe(duplex=False)
        self._workers = workers
        self._at_work: dict[Future[Outcome], int] = {}  # node ids
        self._executor = ProcessPoolExecutor(
            workers, context, initializer=_begin, initargs=(packed, stop)
        )

    def submit(self, message: Message, context: Context) -> Pending:
        """Have the next free worker run the app."""
        node_id = context.node_id
        context.state = portable_records(context.state)
        try:
            with _ctrl_c_withheld():
                future = self._executor.submit(_answer, portable_message(message), context)
        except BrokenProcessPool as error:
            raise self._death() from error
        self._at_work[future] = node_id
        return lambda: self._outcome(future)

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        self._stop.close()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _outcome(self, future: Future[Outcome]) -> Outcome:
        try:
            outcome = future.result()
        except BrokenProcessPool as error:
            raise self._death() from error
        del self._at_work[future]
        return outcome

    def _death(self) -> FlOptError:
        """Return the error that says which clients may be at fault."""
        dead = [
            node_id
            for future, node_id in self._at_work.items()
            if future.done() and isinstance(future.exception(), BrokenProcessPool)
        ]
        # Messages are handled in the order in which they were sent.
        nodes = ", ".join(map(str, dead[: self._workers])) or "none"
        return FlOptError(
            "a worker process died: out of memory, or a crash in native code; "
            f"nodes at work: {nodes}"
        )


def build_runner(app: ClientAppSource, workers: int) -> Runner:
    """Return what runs an app: a pool, or for one worker this process.

    Parameters and errors are those of :class:`WorkerPool`.
    """
    return WorkerPool(app, workers) if workers > 1 else as_runner(load_app(app))


def _begin(packed: bytes, stop: Connection) -> None:
    """Prepare a worker process."""
    threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
    act_as_server()  # as clients do where they share the server's process
    _packed.append(packed)


def _end_with_parent(stop: Connection) -> None:
    """End this process once the other end of the pipe is closed, or its owner has died."""
    parent = multiprocessing.parent_process()
    wait([stop, parent.sentinel] if parent is not None else [stop])
    os._exit(0)


_packed: list[bytes] = []
"""In a worker process: the app, as it was given to it."""


@lru_cache(maxsize=1)
def _app() -> CallableClientApp:
    return unpack_app(_packed[0])


def _answer(message: Message, context: Context) -> Outcome:
    """Run the app in a worker process."""
    app = _app()
    with client_threads():
        outcome = answer(app, message, context)
    reply, state = portable_message(outcome.reply), portable_records(outcome.state)
    return Outcome(reply, state, outcome.failure)


@contextmanager
def _ctrl_c_withheld() -> Iterator[None]:
    """Hold back SIGINT; processes that are started meanwhile never get it.

    They are ended by the pool, which knows better what is to become of them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
