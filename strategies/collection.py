"""The training replies of a round, taken in one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Message, MetricRecord, RecordDict

from fl_opt.codecs import Update
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.incoming import Answer, UplinkUpdate, decode_update
from fl_opt.params import ParamSpec
from fl_opt.spans import span
from strategies.messenger import Messenger
from strategies.norm_bound import NormBound
from strategies.replies import open_evaluation, open_reply
from strategies.update_sum import UpdateSum

Scale = Callable[[MetricRecord, int], float]
"""Gives the factor of an update, beside its weight, from its metrics and its staleness."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """An update that counts.

    Attributes
    ----------
    metrics : MetricRecord
        That came with it.
    num_examples : int
        Its weight.
    staleness : int
        Versions between the model it started from and the one it is added to.
    update : Update
        As it was decoded.
    """

    metrics: MetricRecord
    num_examples: int
    staleness: int
    update: Update


@dataclass(frozen=True)
class Kept:
    """A reply whose update was taken, and the update."""

    reply: Message
    metrics: MetricRecord
    received: UplinkUpdate


class Collection:
    """Decodes updates and adds them up.

    Nothing is final before :meth:`commit`. After :meth:`release`, every update that was taken
    returns to its client.

    Parameters
    ----------
    spec : ParamSpec
        Of the model.
    messenger : Messenger
    weighted_by_key : str
        Name of the metric that weighs updates.
    scale : callable
        A :data:`Scale`.
    bound : NormBound, optional
        Of the updates' norms. Default: none.
    keep : bool
        Whether to keep what is taken, beside its sum.

    Attributes
    ----------
    total : UpdateSum
    metrics, evaluations : list of RecordDict
        Of training, and of the evaluations that came with updates.
    kept : list of Kept
        The updates one by one, if they are kept.
    """

    def __init__(
        self,
        spec: ParamSpec,
        messenger: Messenger,
        weighted_by_key: str,
        scale: Scale,
        *,
        bound: NormBound | None = None,
        keep: bool = False,
    ) -> None:
        self.total = UpdateSum(spec)
        self.metrics: list[RecordDict] = []
        self.evaluations: list[RecordDict] = []
        self._spec = spec
        self._messenger = messenger
        self._weighted_by_key = weighted_by_key
        self._scale = scale
        self._bound = bound or NormBound("none")
        self._keep = keep
        self.kept: list[Kept] = []
        self._counted: list[int] = []

    def __len__(self) -> int:
        """Return the number of updates taken."""
        return len(self._counted)

    def take(self, reply: Message, answer: Answer) -> Taken:
        """Add the update of a reply.

        Raises
        ------
        NotOpenError
            If it must not count, or not again.
        ExchangeError, PayloadError
            If it is not exactly right; nothing of it is added then.
        """
        node_id = reply.metadata.src_node_id
        account = self._messenger.ledger.check(node_id, answer.update)
        metrics, weight = open_reply(reply, self._weighted_by_key)
        self._check_like_others(metrics)
        evaluation = open_evaluation(reply, self._weighted_by_key)
        with span("decode"):
            received = decode_update(
                reply.content,
                answer,
                self._spec,
                version=account.version,
                alive=self._messenger.pruning.at(account.version),
                part=self._messenger.part_of(answer.width, account.version),
            )
        norm = received.update.norm()
        self._bound.check(norm)
        staleness = self._messenger.version - account.version
        with span("add"):
            self.total.add(received, weight, self._scale(metrics, staleness))
        if self._keep:
            self.kept.append(Kept(reply, metrics, received))
        self._bound.accepted(norm)
        self._messenger.ledger.take(node_id)
        self._counted.append(node_id)
        self.metrics.append(_packed(metrics))
        if evaluation is not None:
            self.evaluations.append(_packed(evaluation))
        return Taken(metrics, weight, staleness, received.update)

    def _check_like_others(self, metrics: MetricRecord) -> None:
        """Refuse metrics that cannot be averaged with those taken before."""
        if not self.metrics:
            return
        for key, known in self.metrics[0].metric_records[records.METRICS].items():
            value = metrics.get(key, known)
            if _length(value) != _length(known):
                raise ExchangeError(
                    f"metric {key!r} = {value!r:.80} cannot be averaged with {known!r:.80}"
                )

    def commit(self) -> None:
        """Make all updates that were taken count, for good."""
        for node_id in self._counted:
            self._messenger.ledger.accept(node_id)

    def release(self) -> None:
        """Give all updates that were taken back to their clients."""
        for node_id in self._counted:
            if not self._messenger.ledger.release(node_id):
                _logger.warning("the last update of node %d is lost", node_id)


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else -1


def _packed(metrics: MetricRecord) -> RecordDict:
    return RecordDict({records.METRICS: metrics})
