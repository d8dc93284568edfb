"""One simulated client: the ClientApp with the context of its node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfigValue
from flwr.clientapp.client_app import ClientAppException
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY, ErrorCode

from fl_opt.simulation.isolation import isolated_message, isolated_records

logger = logging.getLogger(__name__)

CallableClientApp: TypeAlias = Callable[[Message, Context], Message]
"""What a ClientApp is to whoever runs it."""


class VirtualClient:
    """A node that runs a ClientApp and keeps its state from message to message.

    Parameters
    ----------
    app : ClientApp
    node_id, partition_id, num_partitions : int
    run_id : int
    run_config : mapping
        Handed to the app as ``context.run_config``.

    Attributes
    ----------
    free_at : float
        When the device has dealt with all messages sent so far, in seconds.
    restarts_until : int
        The round up to which restarts have been taken into account.
    state : RecordDict
        What the app remembers from message to message.
    ran_since_save : bool
        Whether the state may differ from what was saved last.
    """

    def __init__(
        self,
        app: CallableClientApp,
        *,
        node_id: int,
        partition_id: int,
        num_partitions: int,
        run_id: int,
        run_config: Mapping[str, UserConfigValue],
    ) -> None:
        self.node_id = node_id
        self.partition_id = partition_id
        self.free_at = 0.0
        self.restarts_until = 0
        self.state = RecordDict()
        self.ran_since_save = True
        self._app = app
        self._num_partitions = num_partitions
        self._run_id = run_id
        self._run_config = run_config

    def handle(self, message: Message, *, forget: bool = False) -> Message:
        """Run the app on a message.

        An app that raises gives an error reply, as under Flower's runtimes, and leaves the
        state of the node as it was before the message. So does one that dies after its reply
        and before its state is saved (``forget``).
        """
        self.ran_since_save = True
        context = self._context()
        try:
            reply = self._app(isolated_message(message), context)
            _check_reply(reply, message)
        except Exception as error:
            logger.warning(
                "client %d (partition %d) raised %s: %s",
                *(self.node_id, self.partition_id, type(error).__name__, error),
            )
            logger.debug("traceback of client %d", self.node_id, exc_info=True)
            return Message(_as_flower_error(error), reply_to=message)
        if not forget:
            self.state = context.state
        return isolated_message(reply)

    def _context(self) -> Context:
        return Context(
            run_id=self._run_id,
            node_id=self.node_id,
            node_config={
                PARTITION_ID_KEY: self.partition_id,
                NUM_PARTITIONS_KEY: self._num_partitions,
            },
            state=isolated_records(self.state),
            run_config=dict(self._run_config),
        )


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
