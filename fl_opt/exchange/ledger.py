"""The server's books: which updates it has asked for, and which it has accepted.

Every training message carries the id of the update it asks for. An update is taken only while
its id is the last one issued to its node and still open; so it counts at most once, and never
after the node has been told otherwise. The next message to the node names the last id that was
accepted: what the node sent under any other id it takes back into its residual.

What is taken becomes accepted when its round is complete, or when the node is asked again,
whichever comes first: from then on the node relies on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from fl_opt.errors import ExchangeError
from fl_opt.exchange.downlink.base import NOTHING

EPOCH: Final = 1 << 48
"""Ids of a server that was resumed begin at the next multiple of it, above all earlier ones.

So large that ids of all epochs, up to the 127th, take the same number of bytes in a message: a
run that is resumed sends what it would have sent, to the byte.
"""


class NotOpenError(ExchangeError):
    """An update that may not be applied, or not again; nothing is wrong with it otherwise."""


@dataclass
class Account:
    """What the server knows of a client.

    Attributes
    ----------
    held : str
        Fingerprint of the reference that the client last said it holds.
    seed : bool
        Whether it may be able to build the first model from the seed.
    issued, accepted : int
        Last id asked for, and last one accepted (0: none).
    open : bool
        Whether the update asked for last may still count.
    taken : int
        Id of an update that is part of a round not yet complete (0: none).
    version : int
        Of the model that the update asked for last is a difference against.
    updates : int
        Updates accepted.
    returned : int
        Updates that the client took back into its residual.
    lost : int
        Times that the client had lost its residual.
    residual_norm : float
        L2 norm of its residual, as it last said.
    norm_lost : float
        Sum of the norms of the residuals that were lost, each as it was last said.
    """

    held: str = NOTHING
    seed: bool = True
    issued: int = 0
    accepted: int = 0
    open: bool = False
    taken: int = 0
    version: int = 0
    updates: int = 0
    returned: int = 0
    lost: int = 0
    residual_norm: float = 0.0
    norm_lost: float = 0.0


@dataclass
class Ledger:
    """Accounts of all clients, by node id.

    Attributes
    ----------
    epoch : int
        From 1; one more each time the server is resumed.
    """

    epoch: int = 1
    accounts: dict[int, Account] = field(default_factory=dict)

    def of(self, node_id: int) -> Account:
        """Return the account of a client; a new one at first."""
        return self.accounts.setdefault(node_id, Account())

    def issue(self, node_id: int, version: int) -> int:
        """Return the id of a new update; those issued before can no longer be accepted."""
        self.accept(node_id)
        account = self.of(node_id)
        account.issued = max(account.issued, self.epoch * EPOCH) + 1
        account.open = True
        account.version = version
        return account.issued

    def check(self, node_id: int, update: int) -> Account:
        """Return the account of a client whose update may be accepted.

        Raises
        ------
        NotOpenError
            If it may not: a duplicate, too late, or asked for by nobody.
        """
        account = self.of(node_id)
        if update == account.issued and account.open:
            return account
        if update and update in (account.accepted, account.taken):
            raise NotOpenError(f"update {update} has been applied already")
        if 0 < update <= account.issued:
            raise NotOpenError(
                f"update {update} came too late: it was given back to the client"
            )
        raise NotOpenError(f"update {update} was not asked for")

    def take(self, node_id: int) -> None:
        """Note that the open update of a client is part of the round."""
        account = self.of(node_id)
        account.taken = account.issued
        account.open = False

    def accept(self, node_id: int) -> None:
        """Note that what was taken from a client is part of the model, for good."""
        account = self.of(node_id)
        if account.taken:
            account.accepted, account.taken = account.taken, 0
            account.updates += 1

    def release(self, node_id: int) -> bool:
        """Let what was taken from a client return to it; False if it relies on it already."""
        account = self.of(node_id)
        released = bool(account.taken)
        account.taken = 0
        return released

    def close_all(self) -> None:
        """Refuse all open updates."""
        for account in self.accounts.values():
            account.open = False

    def to_values(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "epoch": self.epoch,
            "accounts": {str(node): asdict(account) for node, account in self.accounts.items()},
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Ledger:
        """Read what :meth:`to_values` returned."""
        known = [field.name for field in fields(Account)]
        accounts = {
            int(node): Account(**{name: account[name] for name in known})
            for node, account in values["accounts"].items()
        }
        return cls(int(values["epoch"]), accounts)
