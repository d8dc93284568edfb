"""Which prunings and sub-models go with what else is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from fl_opt.codecs import Encoder, build_codec
from fl_opt.codecs.lowrank import ReducedCodec
from fl_opt.codecs.rules import RuledCodec
from fl_opt.errors import ConfigError
from fl_opt.exchange.submodels import NO_SUBMODELS, build_submodels
from strategies.pruning_rules import NO_PRUNING, build_pruning


def check_reductions(
    pruning: str, submodels: str, *, codecs: Mapping[str, str], takes_parts: bool
) -> None:
    """Refuse specs that are wrong, or do not go with the codecs or the strategy.

    Parameters
    ----------
    pruning, submodels : str
        Specs.
    codecs : mapping of str to str
        Specs of the codecs in use, by what they are.
    takes_parts : bool
        Whether the strategy makes sense of updates that cover a part of the model.

    Raises
    ------
    ConfigError
    """
    build_submodels(submodels)
    if build_pruning(pruning).name != NO_PRUNING:
        for name, codec in codecs.items():
            if _uses_matrices(build_codec(codec)):
                raise ConfigError(
                    f"pruning = {pruning!r}: {name} {codec!r} takes arrays for matrices, and "
                    "what is not pruned of one is none; use a codec without low-rank stages"
                )
    if submodels != NO_SUBMODELS and not takes_parts:
        raise ConfigError(
            f"submodels = {submodels!r}: this strategy needs updates of the whole model; "
            "fedavg, fedprox, fedbuff and fedasync take those of a part"
        )


def check_length(pruning: str, num_rounds: int) -> None:
    """Refuse a schedule that ends behind the run's last round.

    Raises
    ------
    ConfigError
    """
    last = build_pruning(pruning).last_round
    if last > num_rounds:
        raise ConfigError(
            f"setting 'pruning' = {pruning!r}: it prunes up to round {last}, and "
            f"'num-server-rounds' is {num_rounds}"
        )


def _uses_matrices(codec: Encoder) -> bool:
    if isinstance(codec, RuledCodec):
        return any(
            _uses_matrices(one) for one in [*(r.codec for r in codec.rules), codec.default]
        )
    return isinstance(codec, ReducedCodec)
