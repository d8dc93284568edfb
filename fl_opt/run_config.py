"""The option ``--run-config`` of commands, as ``flwr run`` has it."""

from __future__ import annotations

import shlex

from fl_opt.config import ConfigValue
from fl_opt.errors import ConfigError


def parse_run_config(arguments: list[str]) -> dict[str, ConfigValue]:
    """Read ``--run-config`` as ``flwr run`` does: pairs, or the path of one TOML file.

    Raises
    ------
    ConfigError
        If an argument is neither, or only in part.
    """
    import click
    from flwr.common.config import parse_config_args

    for text in arguments:
        try:
            pairs = parse_config_args([text])
            complete = text.endswith(".toml") or len(pairs) == len(shlex.split(text))
        except FileNotFoundError:
            raise ConfigError(f"run config file {text!r} does not exist") from None
        except (click.ClickException, ValueError):
            complete = False
        if not complete:
            raise ConfigError(
                f"run config {text!r} is neither a TOML file nor pairs such as "
                "\"dataset='digits' seed=7\" (text needs quotes)"
            )
    try:
        return dict(parse_config_args(arguments))
    except ValueError as error:
        raise ConfigError(f"run config: {error}") from None
