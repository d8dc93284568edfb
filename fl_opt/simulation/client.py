"""One simulated client: the state of a node, and what it is asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfigValue
from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY

from fl_opt.simulation.answering import Outcome
from fl_opt.simulation.runner import Pending, Runner

logger = logging.getLogger(__name__)


class VirtualClient:
    """A node that has its messages answered and keeps its state from one to the next.

    Parameters
    ----------
    runner : Runner
        Runs the ClientApp.
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
        runner: Runner,
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
        self._runner = runner
        self._num_partitions = num_partitions
        self._run_id = run_id
        self._run_config = run_config

    def begin(self, message: Message) -> Pending:
        """Have a message answered; before the next one, the outcome goes to :meth:`finish`."""
        self.ran_since_save = True
        return self._runner.submit(message, self._context())

    def finish(self, outcome: Outcome, *, forget: bool = False) -> Message:
        """Take over the new state and return the reply.

        An app that raised leaves the state of the node as it was before the message. So does
        one that dies after its reply and before its state is saved (``forget``).
        """
        if outcome.failure is not None:
            place = self.node_id, self.partition_id
            logger.warning(
                "client %d (partition %d) raised %s", *place, outcome.failure.summary
            )
            logger.debug("traceback of client %d:\n%s", self.node_id, outcome.failure.traceback)
        elif not forget:
            self.state = outcome.state
        return outcome.reply

    def _context(self) -> Context:
        return Context(
            run_id=self._run_id,
            node_id=self.node_id,
            node_config={
                PARTITION_ID_KEY: self.partition_id,
                NUM_PARTITIONS_KEY: self._num_partitions,
            },
            state=self.state,
            run_config=dict(self._run_config),
        )
