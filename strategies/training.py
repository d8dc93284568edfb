"""The training half of a round: who is asked, and what is taken of what comes back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType
from flwr.serverapp import Grid

from fl_opt.errors import FlOptError
from fl_opt.exchange.incoming import Answer
from fl_opt.exchange.ledger import NotOpenError
from strategies.adaptation import Adaptation
from strategies.balance import Balance
from strategies.collection import Collection, Scale, Taken
from strategies.correspondence import Correspondence
from strategies.messenger import Messenger, OwnConfig
from strategies.model import GlobalModel
from strategies.norm_bound import NormBound
from strategies.pace import Pace
from strategies.roster import Roster
from strategies.round_log import RoundLog
from strategies.streaming import ReplyStream, StreamingGrid

LateReplies = Literal["accept", "refuse"]


@dataclass(frozen=True)
class TrainingRules:
    """How training rounds go.

    Parameters
    ----------
    pace : Pace
    late_replies : {"accept", "refuse"}
        What becomes of a reply that comes after its round was closed.
    weighted_by_key : str
        Name of the metric that weighs updates.
    scale : callable
        A :data:`~strategies.collection.Scale`.
    bound : NormBound
        Of updates that are believed.
    keep_updates : bool
        Whether updates are kept one by one, beside their sum.
    ttl : float or None
        Seconds after which a client that has not answered is given up.
    """

    pace: Pace
    late_replies: LateReplies
    weighted_by_key: str
    scale: Scale
    bound: NormBound
    keep_updates: bool = False
    ttl: float | None = None


class Training:
    """Opens rounds and takes in updates.

    Parameters
    ----------
    rules : TrainingRules
    roster : Roster
    balance : Balance
    adaptation : Adaptation
    model : GlobalModel
    messenger : Messenger
    correspondence : Correspondence
    log : RoundLog
    """

    def __init__(
        self,
        rules: TrainingRules,
        *,
        roster: Roster,
        balance: Balance,
        adaptation: Adaptation,
        model: GlobalModel,
        messenger: Messenger,
        correspondence: Correspondence,
        log: RoundLog,
    ) -> None:
        self._rules = rules
        self._roster = roster
        self._balance = balance
        self._adaptation = adaptation
        self._model = model
        self._messenger = messenger
        self._correspondence = correspondence
        self._log = log
        self._wanted = 0
        self._at_work = 0

    def choose(self, grid: Grid, wanted: int) -> list[int]:
        """Return the clients to ask at the beginning of a round.

        Parameters
        ----------
        grid : Grid
            Clients that are still at work, as far as it knows, are left alone; those whose
            work would be refused may be asked anew.
        wanted : int
            Updates wanted for a step.
        """
        pace = self._rules.pace
        accepts = self._rules.late_replies == "accept"
        busy = grid.busy if accepts and isinstance(grid, StreamingGrid) else set()
        count = pace.to_ask(wanted, len(busy))
        self._wanted = wanted
        self._log.expect(wanted if pace.refills else min(count, wanted))
        self._at_work = len(busy)
        return self._roster.choose(count, busy)

    def open(
        self,
        server_round: int,
        config: ConfigRecord,
        nodes: Sequence[int],
        *,
        evaluate: bool,
        own: OwnConfig | None = None,
    ) -> list[Message]:
        """Return a message to each of the clients that were chosen.

        Parameters
        ----------
        server_round : int
        config : ConfigRecord
        nodes : sequence of int
        evaluate : bool
            Whether clients are to evaluate before they train.
        own : callable, optional
            Entries of the config that are for one client only.
        """

        def own_config(node_id: int) -> Mapping[str, Any]:
            steps = self._balance.steps(node_id)
            sized = {} if steps is None else {"local-steps": steps}
            return {**own(node_id), **sized} if own is not None else sized

        return self._correspondence.open(
            server_round,
            nodes,
            config,
            MessageType.TRAIN,
            dense_bytes=self._model.dense_bytes,
            evaluate=evaluate,
            participants=len(nodes) + self._at_work if self._rules.pace.refills else 0,
            wanted=self._wanted or None,
            own=own_config,
            ttl=self._rules.ttl,
        )

    def collect(self, replies: Iterable[Message]) -> Collection:
        """Take in replies until there are enough of them, or no more come."""
        rules = self._rules
        taken = Collection(
            self._model.spec,
            self._messenger,
            rules.weighted_by_key,
            rules.scale,
            bound=rules.bound,
            keep=rules.keep_updates,
        )
        if isinstance(replies, ReplyStream):
            replies.waits_for_late = rules.pace.refills or not replies.expected
        on_time = 0
        for reply in self._correspondence.read(replies):
            self._log.received(reply, training=True, received=len(taken) + 1)
            late = self._correspondence.is_late(reply)
            with self._log.part("decode-aggregate"):
                on_time += self._take(reply, taken) and not late
            if rules.pace.enough(self._wanted, on_time, len(taken)):
                self._correspondence.close()
                break
            # What came at the same moment is taken in first: it may complete a step, and those
            # who are asked then get the newer model.
            if rules.pace.refills and not self._correspondence.at_hand:
                with self._log.part("send"):
                    busy = self._correspondence.busy
                    count = rules.pace.to_ask(self._wanted, len(busy))
                    self._correspondence.ask(self._roster.choose(count, busy))
        self._give_up(surplus=rules.pace.enough(self._wanted, on_time, len(taken)))
        return taken

    def _take(self, reply: Message, taken: Collection) -> bool:
        """Take in a reply for what it is worth; say whether its update counts."""
        try:
            answer = self._correspondence.answer(reply)
            if answer is None:
                return False
            found = taken.take(reply, answer)
        except NotOpenError as error:
            self._correspondence.ignore(reply, error)
            return False
        except FlOptError as error:
            self._correspondence.refuse(reply, error)
            self._report(reply, None)
            return False
        self._report(reply, found)
        self._learn(reply, found, answer)
        self._correspondence.settled(reply)
        return True

    def _report(self, reply: Message, found: Taken | None) -> None:
        """Write down what became of a request, for all who learn from it."""
        node_id = self._correspondence.node_of(reply)
        seconds = self._correspondence.seconds_of(reply)
        if found is None:
            self._roster.report(node_id, seconds, used=False)
            return
        steps = _number(found.metrics, "num-steps")
        self._balance.observe(node_id, seconds, steps, found.num_examples)
        self._roster.report(
            node_id,
            seconds,
            used=True,
            num_examples=found.num_examples,
            loss=_number(found.metrics, "train-loss"),
            update_norm=found.update.norm(),
        )
        self._log.accepted(
            node_id, found.num_examples, staleness=found.staleness, seconds=seconds
        )

    def _learn(self, reply: Message, found: Taken, answer: Answer) -> None:
        """Learn from a reply that counts how fast its client's link is."""
        node_id = self._correspondence.node_of(reply)
        level = self._adaptation.level(node_id)
        if level is None:
            return
        self._adaptation.observe(
            reply,
            seconds=self._correspondence.seconds_of(reply),
            work_seconds=self._log.work_seconds(reply),
            sent_norm=found.update.norm(),
            update_norm=answer.update_norm,
        )
        self._log.adapted(node_id, level, self._adaptation.mbps(node_id))

    def _give_up(self, *, surplus: bool) -> None:
        """Deal with what has not come; those who were asked for nothing have not failed."""
        unanswered = self._correspondence.unanswered
        if not surplus and not self._rules.pace.refills:
            self._log.missing(len(unanswered))
        if self._rules.late_replies == "refuse":
            self._messenger.ledger.close_all()
            for node_id in sorted(unanswered):
                self._roster.report(node_id, math.inf, used=False)


def _number(metrics: Mapping[str, Any], key: str) -> float | None:
    """Return a metric that a client may have sent, if it is a finite number."""
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None
