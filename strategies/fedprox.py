"""FedProx: clients are held near the model that they start from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fl_opt.errors import ConfigError
from strategies.fedavg import CompressedFedAvg


class CompressedFedProx(CompressedFedAvg):
    """Federated averaging with a proximal term on clients (Li et al. 2020, arXiv 1812.06127).

    Clients are told ``proximal-mu`` in their config, as Flower's FedProx tells them; they add
    ``mu / 2 ||w - w_t||^2`` to their loss. fl-opt's own client does.

    Parameters
    ----------
    codec : str
        Spec of what clients send.
    proximal_mu : float
        Weight of the term, at least 0.
    **options
        Of :class:`~strategies.fedavg.CompressedFedAvg`.
    """

    def __init__(
        self, codec: str = "topk(0.02) | ternary", *, proximal_mu: float = 0.01, **options: Any
    ) -> None:
        if not 0.0 <= proximal_mu < float("inf"):
            raise ConfigError(f"proximal_mu = {proximal_mu} is not a number of at least 0")
        super().__init__(codec, **options)
        self.proximal_mu = proximal_mu

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose clients and write a message to each, with the weight of the term."""
        config["proximal-mu"] = self.proximal_mu
        return super().configure_train(server_round, arrays, config, grid)
