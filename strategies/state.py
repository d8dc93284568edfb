"""A strategy's state in a checkpoint, and back.

The blob ``strategy`` holds plain values, the books of all clients among them, and small arrays;
each large array has a blob of its own, so that what has not changed is not written again. An
engine that can be saved adds its blobs under ``engine.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl_opt.checkpoint import Checkpoints, below, pack_state, unpack_state
from fl_opt.errors import CheckpointError
from fl_opt.exchange.ledger import Ledger
from fl_opt.params import ParamSpec
from strategies.messenger import Messenger
from strategies.model import GlobalModel
from strategies.streaming import Sent

Arrays = dict[str, NDArray[Any]]

_BLOB: Final = "strategy"
_ENGINE: Final = "engine."
_ARRAY: Final = "array."
_LARGE: Final = 1 << 16
"""Bytes from which an array has a blob of its own."""


@dataclass(frozen=True)
class Memory:
    """What a strategy learns as it goes.

    Attributes
    ----------
    optimizer : dict of str to ndarray
        Vectors that the next step depends on.
    roster, balance : dict
        Plain values that the next choice of clients and the size of their work depend on.
    pruning : dict of str to ndarray
        What is pruned, and since when.
    adaptation : dict
        Plain values that the next choice of codecs depends on.
    average : dict of str to ndarray
        The average of the models so far.
    norms : list of float
        Of the last updates, which the next ones are measured by.
    """

    optimizer: Arrays
    roster: dict[str, Any]
    balance: dict[str, Any]
    pruning: Arrays = field(default_factory=dict)
    adaptation: dict[str, Any] = field(default_factory=dict)
    average: Arrays = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """How far a strategy has come, at the end of a round.

    Attributes
    ----------
    server_round : int
    memory : Memory
    late : dict of str to Sent
        Messages whose replies may still come, by message id.
    longest : float
        Seconds that the slowest reply has taken.
    """

    server_round: int
    memory: Memory
    late: dict[str, Sent]
    longest: float


def save(
    checkpoints: Checkpoints,
    progress: Progress,
    model: GlobalModel,
    messenger: Messenger,
    grid: Grid,
) -> None:
    """Write a checkpoint.

    Raises
    ------
    CheckpointError
        If it cannot be written. The last one stays, and the next one will be complete.
    """
    kept, references = messenger.downlink.state()
    values = {
        "round": progress.server_round,
        "roster": progress.memory.roster,
        "balance": progress.memory.balance,
        "adaptation": progress.memory.adaptation,
        "norms": progress.memory.norms,
        "longest": progress.longest,
        "late": {key: [sent.node_id, sent.at] for key, sent in progress.late.items()},
        "mode": messenger.downlink.mode,
        "downlink": kept,
        "ledger": messenger.ledger.to_values(),
    }
    arrays: Arrays = {
        "spec": np.frombuffer(model.spec.to_bytes(), np.uint8),
        "vector": model.vector,
        **{f"exact/{name}": array for name, array in model.exact.items()},
        **{f"optimizer/{name}": array for name, array in progress.memory.optimizer.items()},
        **{f"pruning/{name}": array for name, array in progress.memory.pruning.items()},
        **{f"average/{name}": array for name, array in progress.memory.average.items()},
        **{f"downlink/{name}": array for name, array in references.items()},
    }
    large = {name: array for name, array in arrays.items() if array.nbytes >= _LARGE}
    small = {name: array for name, array in arrays.items() if name not in large}
    blobs: dict[str, bytes | None] = {_BLOB: pack_state(values, small)}
    for name, array in large.items():
        blobs[f"{_ARRAY}{name}"] = pack_state({}, {name: array})
    engine: Any = getattr(grid, "save", None)
    if engine is not None:
        blobs |= {f"{_ENGINE}{name}": blob for name, blob in engine().items()}
    try:
        checkpoints.save(blobs)
    except CheckpointError:
        forget: Any = getattr(grid, "forget_saved", None)
        if forget is not None:
            forget()
        raise


def load(
    checkpoints: Checkpoints, model: GlobalModel, messenger: Messenger, grid: Grid
) -> Progress:
    """Read a checkpoint: model, messenger and engine go on from it.

    Raises
    ------
    CheckpointError
        If it is damaged, or of another kind of downlink or engine.
    """
    blobs = checkpoints.load()
    values, arrays = _strategy_blob(blobs, checkpoints)
    if values["mode"] != messenger.downlink.mode:
        raise CheckpointError(
            f"{checkpoints.folder}: the checkpoint was made with downlink.mode = "
            f"{values['mode']!r}, not {messenger.downlink.mode!r}"
        )
    spec = ParamSpec.from_bytes(arrays["spec"].tobytes())
    engine = below(blobs, _ENGINE)
    restore: Any = getattr(grid, "restore", None)
    if (restore is None) != (not engine):
        raise CheckpointError(f"{checkpoints.folder}: the checkpoint is of another engine")
    messenger.resume(
        spec,
        Ledger.from_values(values["ledger"]),
        values["downlink"],
        below(arrays, "downlink/"),
        with_clients=restore is not None,
    )
    if restore is not None:
        restore(engine)
    model.spec = spec
    model.move(arrays["vector"], below(arrays, "exact/"))
    return Progress(
        server_round=int(values["round"]),
        memory=Memory(
            below(arrays, "optimizer/"),
            values["roster"],
            values["balance"],
            below(arrays, "pruning/"),
            values.get("adaptation", {}),
            below(arrays, "average/"),
            values.get("norms", []),
        ),
        late={key: Sent(int(node), float(at)) for key, (node, at) in values["late"].items()},
        longest=float(values["longest"]),
    )


def saved_round(checkpoints: Checkpoints) -> int:
    """Return the round at whose end the checkpoint was made; -1 if there is none.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    if not checkpoints.exists():
        return -1
    return int(_strategy_blob(checkpoints.load(), checkpoints)[0]["round"])


def _strategy_blob(
    blobs: Mapping[str, bytes], checkpoints: Checkpoints
) -> tuple[dict[str, Any], Arrays]:
    if _BLOB not in blobs:
        raise CheckpointError(f"{checkpoints.folder}: the checkpoint is not a strategy's")
    values, arrays = unpack_state(blobs[_BLOB])
    for blob in below(blobs, _ARRAY).values():
        arrays |= unpack_state(blob)[1]
    return values, arrays
