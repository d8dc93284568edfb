"""Between a strategy and its clients: what each is sent, and what it is known to hold."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fl_opt.codecs.update import Vector
from fl_opt.errors import ExchangeError
from fl_opt.exchange import records
from fl_opt.exchange.coverage import Coverage
from fl_opt.exchange.downlink import Delivery, Downlink, Kind
from fl_opt.exchange.downlink.base import NOTHING, Arrays, Values
from fl_opt.exchange.incoming import Answer
from fl_opt.exchange.ledger import Ledger
from fl_opt.exchange.reference import ExactArrays
from fl_opt.exchange.rules import ReplyRules
from fl_opt.exchange.submodels import NO_SUBMODELS, cut
from fl_opt.params import ParamSpec
from strategies.adaptation import Adaptation
from strategies.pruning import Pruning

OwnConfig: TypeAlias = Callable[[int], Mapping[str, Any]]
"""Gives the entries of the config that are for one node only."""

_MOST_REPEATS: Final = 2
"""Times that a client is served again in one round: from the seed, then with a snapshot."""

_logger = logging.getLogger(__name__)


class Messenger:
    """Writes messages and keeps the books of what clients hold and were asked for.

    Parameters
    ----------
    downlink : Downlink
    rules : ReplyRules
        How clients are to answer.
    pruning : Pruning, optional
        What of the model is pruned. Default: nothing, for ever.
    adaptation : Adaptation, optional
        Which codec each client gets. Default: all the same.

    Attributes
    ----------
    ledger : Ledger
    pruning : Pruning
    """

    def __init__(
        self,
        downlink: Downlink,
        rules: ReplyRules,
        pruning: Pruning | None = None,
        adaptation: Adaptation | None = None,
    ) -> None:
        self.downlink = downlink
        self.pruning = pruning or Pruning("none")
        self._adaptation = adaptation
        self.ledger = Ledger()
        self._rules = rules
        self._spec = ParamSpec(())
        self._round = 0
        self._type: str = MessageType.TRAIN
        self._config = ConfigRecord()
        self._own: OwnConfig | None = None
        self._ttl: float | None = None
        self._repeats: Counter[int] = Counter()
        self._wanted: int | None = None

    @property
    def version(self) -> int:
        """Version of the model that messages are about."""
        return self.downlink.version

    def begin(self, spec: ParamSpec, vector: Vector, exact: ExactArrays) -> None:
        """Take over a model set from outside."""
        self._spec = spec
        self.pruning.begin(spec)
        if self._rules.submodels != NO_SUBMODELS:
            cut(spec, self._rules.submodels, 0.5, 0)  # refuses a model that cannot be cut
        self.downlink.begin(spec, vector, exact)
        if self._adaptation is not None:
            self._adaptation.begin(spec.size)

    def advance(self, server_round: int, vector: Vector, exact: ExactArrays) -> Vector:
        """Take over the next model, of which some may be pruned before: return it.

        The vector is changed in place.
        """
        self.pruning.prune(server_round, self._spec, vector, self.version + 1)
        self.downlink.advance(vector, exact, self.pruning.alive)
        return vector

    def part_of(self, width: float, version: int) -> Coverage | None:
        """Return the sub-model that a client of a width trains; None: the whole model.

        Raises
        ------
        ExchangeError
            If a client claims to have trained one, and there are to be none.
        ConfigError
            If there is none of that width.
        """
        if width == 1.0:
            return None
        if self._rules.submodels == NO_SUBMODELS:
            raise ExchangeError(f"update of a sub-model of width {width}: there are none")
        return cut(self._spec, self._rules.submodels, width, version).covers

    def resume(
        self,
        spec: ParamSpec,
        ledger: Ledger,
        values: Values,
        references: Arrays,
        *,
        with_clients: bool,
    ) -> None:
        """Go on from a checkpoint; ids of updates begin above all that were issued.

        ``with_clients`` says that clients go on from the same moment. Those that lived on may
        have taken an update back since, and sent it with a later one: none of the updates that
        were open is taken from them.
        """
        self._spec = spec
        ledger.epoch += 1
        if not with_clients:
            ledger.close_all()
        self.ledger = ledger
        self.downlink.restore(spec, values, references)

    def open_round(
        self,
        server_round: int,
        nodes: Sequence[int],
        config: ConfigRecord,
        message_type: str,
        *,
        evaluate: bool = False,
        participants: int = 0,
        wanted: int | None = None,
        own: OwnConfig | None = None,
        ttl: float | None = None,
    ) -> list[tuple[Message, Kind]]:
        """Return a message to each node, and what it carries.

        Parameters
        ----------
        server_round : int
        nodes : sequence of int
        config : ConfigRecord
            The app's own; it is copied, as Flower's loop changes it in the next round.
        message_type : str
            ``train`` or ``evaluate``.
        evaluate : bool
            Whether clients are to evaluate before they train.
        participants : int
            Clients that take part, where these are more than the nodes asked now.
        wanted : int, optional
            How many of them are waited for. Default: all.
        own : callable, optional
            An :data:`OwnConfig`.
        ttl : float, optional
            Seconds after which a message is answered by an error; default: Flower's.
        """
        self._round = server_round
        self._type = message_type
        self._config = ConfigRecord(dict(config))
        self._own = own
        self._ttl = ttl
        self._wanted = wanted
        self._repeats.clear()
        self._rules = dataclasses.replace(
            self._rules, participants=max(participants, len(nodes)), evaluate=evaluate
        )
        return self.ask(nodes)

    def ask(self, nodes: Iterable[int]) -> list[tuple[Message, Kind]]:
        """Return a message of the same round to each of some more nodes."""
        nodes = list(nodes)
        self.downlink.prepare(self.ledger.of(node_id).held for node_id in nodes)
        if self._adaptation is not None and self._type == MessageType.TRAIN:
            wanted = len(nodes) if self._wanted is None else self._wanted
            self._adaptation.choose(nodes, min(wanted, len(nodes)))
        return [self._message(node_id, self._type) for node_id in nodes]

    def note(self, node_id: int, answer: Answer) -> None:
        """Take down what a client says about itself."""
        account = self.ledger.of(node_id)
        if not answer.need and answer.update not in (0, account.issued):
            return  # from an earlier round: the client may have moved on since
        account.held = answer.held
        account.seed &= answer.seed
        self.downlink.confirm(node_id, answer.held)
        if answer.need:
            return
        account.returned += answer.returned
        if answer.lost:
            account.lost += 1
            account.norm_lost += account.residual_norm
        account.residual_norm = answer.residual_norm

    def repeat(self, reply: Message, answer: Answer) -> tuple[Message, Kind]:
        """Serve a client again that could not build on what it was sent.

        Raises
        ------
        ExchangeError
            If that was done often enough in this round.
        """
        node_id = reply.metadata.src_node_id
        if self._repeats[node_id] >= _MOST_REPEATS:
            raise ExchangeError(f"client cannot follow: {answer.need}")
        self._repeats[node_id] += 1
        _logger.info("node %d is served again: %s", node_id, answer.need)
        return self._message(node_id, reply.metadata.message_type)

    def _message(self, node_id: int, message_type: str) -> tuple[Message, Kind]:
        account = self.ledger.of(node_id)
        level = self._adaptation.level(node_id) if self._adaptation is not None else None
        delivery = self.downlink.serve(
            node_id, account.held, seed=account.seed, codec=level.down if level else None
        )
        asks = message_type == MessageType.TRAIN
        content = RecordDict(
            {
                records.META: self._meta(
                    node_id, delivery, codec=level.up if level and asks else None, asks=asks
                ),
                records.CONFIG: self._config_of(node_id),
            }
        )
        if delivery.record is not None:
            content[records.ARRAYS] = delivery.record
        message = Message(
            content,
            dst_node_id=node_id,
            message_type=message_type,
            group_id=str(self._round),
            ttl=self._ttl,
        )
        if self._adaptation is not None and asks:
            self._adaptation.sent(message)
        return message, delivery.kind

    def _config_of(self, node_id: int) -> ConfigRecord:
        """Return the config of the round, one record for those with nothing of their own."""
        own = self._own(node_id) if self._own is not None else {}
        return ConfigRecord({**self._config, **own}) if own else self._config

    def _meta(
        self, node_id: int, delivery: Delivery, *, codec: str | None, asks: bool
    ) -> ConfigRecord:
        ledger, version = self.ledger, self.version
        rules = self._rules
        if codec is not None:
            rules = dataclasses.replace(rules, codec=codec, measure=True)
        meta: dict[str, records.MetaValue] = {
            "version": version,
            "base": delivery.base,
            "reference": delivery.fingerprint,
            "step": self.downlink.step if self.downlink.keeps else 0.0,
            "keep": self.downlink.keeps,
            "spec": self._spec.fingerprint,
            "update": ledger.issue(node_id, version) if asks else 0,
            "acknowledged": ledger.of(node_id).accepted,
            **rules.to_meta(),
        }
        if delivery.base == NOTHING or delivery.kind is Kind.FROM_SEED:
            meta["model"] = self._spec.to_bytes()
        return records.pack_meta(meta)
