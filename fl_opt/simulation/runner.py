"""Who runs the ClientApp: this process, or a pool of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from flwr.app import Context, Message

from fl_opt.simulation.answering import CallableClientApp, Outcome, answer
from fl_opt.simulation.isolation import isolated_message, isolated_records
from fl_opt.simulation.resources import client_threads

Pending: TypeAlias = Callable[[], Outcome]
"""Waits for the outcome of a message; to be called once."""


class Runner(ABC):
    """Answers messages to clients, one or many at a time.

    What is handed in stays as it is, and what comes out is shared with no client.
    """

    @abstractmethod
    def submit(self, message: Message, context: Context) -> Pending:
        """Have a message answered by the client whose context this is."""

    @abstractmethod
    def close(self) -> None:
        """Stop; what has not been answered never will be."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class InProcessRunner(Runner):
    """Runs the app here and at once.

    Parameters
    ----------
    app : ClientApp
    """

    def __init__(self, app: CallableClientApp) -> None:
        self._app = app

    def submit(self, message: Message, context: Context) -> Pending:
        """Run the app; nothing is left to wait for."""
        context.state = isolated_records(context.state)
        with client_threads():
            outcome = answer(self._app, isolated_message(message), context)
        own = Outcome(isolated_message(outcome.reply), outcome.state, outcome.failure)
        return lambda: own

    def close(self) -> None:
        """Do nothing: nothing is under way."""


def as_runner(app: CallableClientApp | Runner) -> Runner:
    """Return the runner itself, or one that runs an app in this process."""
    return app if isinstance(app, Runner) else InProcessRunner(app)
