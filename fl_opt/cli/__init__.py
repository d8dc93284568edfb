"""The command ``fl-opt``."""

from fl_opt.cli.app import app

__all__ = ["app"]
