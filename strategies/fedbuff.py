"""Asynchronous federated averaging: nobody waits for the slowest."""

from __future__ import annotations

from typing import Any

from fl_opt.errors import ConfigError
from strategies.fedavg import CompressedFedAvg
from strategies.pace import Buffer


class CompressedFedBuff(CompressedFedAvg):
    """A step for every ``buffer_size`` updates, whoever sends them (FedBuff).

    ``max_concurrency`` clients are at work at any time: for each that answers another one is
    asked, with the newest model. An update is a difference to the model which its client
    started from, and counts less if the server has taken steps since::

        w += eta / K  sum_i  s(staleness_i) delta_i

    (Nguyen et al. 2022, arXiv 2106.06639), here with the clients' examples as further weights,
    of which K is the sum. A round of the record is one step. With equally fast clients and
    ``buffer_size = max_concurrency`` this is federated averaging.

    Parameters
    ----------
    codec : str
        Spec of what clients send.
    buffer_size : int
        Updates for a step.
    max_concurrency : int
        Clients at work. In the paper's experiments ten times the buffer's size and more.
    **options
        Of :class:`~strategies.fedavg.CompressedFedAvg`, apart from ``clients_per_round`` and
        ``pace``; late replies are what this is about, and are always accepted.
    """

    def __init__(
        self,
        codec: str = "topk(0.02) | ternary",
        *,
        buffer_size: int = 5,
        max_concurrency: int = 10,
        **options: Any,
    ) -> None:
        if options.get("late_replies", "accept") != "accept":
            raise ConfigError("late_replies = 'refuse': an asynchronous strategy accepts them")
        pace = Buffer(buffer_size, max_concurrency)
        options["clients_per_round"] = buffer_size
        super().__init__(codec, pace=pace, **options)


class CompressedFedAsync(CompressedFedBuff):
    """A step for every single update: FedBuff with a buffer of one.

    FedAsync (Xie et al. 2019, arXiv 1903.03934) moves towards the client's model, ``w += a_t
    (w_i - w)``; here the client's update is added, ``w += a_t (w_i - w_base)``, which does not
    undo the steps that the client missed. The mixing rate ``a`` is the optimizer's ``eta``.

    Parameters
    ----------
    codec : str
        Spec of what clients send.
    max_concurrency : int
        Clients at work.
    server_optimizer : str
        As of :class:`~strategies.fedavg.CompressedFedAvg`.
    **options
        Of :class:`CompressedFedBuff`.
    """

    def __init__(
        self,
        codec: str = "topk(0.02) | ternary",
        *,
        max_concurrency: int = 10,
        server_optimizer: str = "sgd(eta=0.6)",
        **options: Any,
    ) -> None:
        super().__init__(
            codec,
            buffer_size=1,
            max_concurrency=max_concurrency,
            server_optimizer=server_optimizer,
            **options,
        )
