"""A ClientApp's answer to one message, in whatever process it runs."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp.client_app import ClientAppException
from flwr.common.constant import ErrorCode

CallableClientApp: TypeAlias = Callable[[Message, Context], Message]
"""What a ClientApp is to whoever runs it."""


@dataclass(frozen=True)
class Failure:
    """An exception that an app raised: its type and text in one line, and its traceback."""

    summary: str
    traceback: str


@dataclass(frozen=True)
class Outcome:
    """What became of a message.

    Attributes
    ----------
    reply : Message
        An error if the app failed, as under Flower's runtimes.
    state : RecordDict
        What the client remembers from now on; empty, and not to be used, if the app failed.
    failure : Failure or None
    """

    reply: Message
    state: RecordDict
    failure: Failure | None = None


def answer(app: CallableClientApp, message: Message, context: Context) -> Outcome:
    """Run an app on a message; both arguments are the app's to change."""
    try:
        reply = app(message, context)
        _check_reply(reply, message)
    except Exception as error:
        failure = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
        failed = Message(_as_flower_error(error), reply_to=message)
        return Outcome(failed, RecordDict(), failure)
    return Outcome(reply, context.state)


def _check_reply(reply: object, message: Message) -> None:
    if not isinstance(reply, Message):
        raise TypeError(f"the ClientApp returned {type(reply).__name__}, not a Message")
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise ValueError("the ClientApp returned a Message that is no reply to the one it got")


def _as_flower_error(error: Exception) -> Error:
    """Return the error that Flower's simulation runtime reports for an exception."""
    wrapped = ClientAppException(str(error))
    return Error(
        code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
        reason=f"{type(wrapped)}:<'{wrapped}'>",
    )
