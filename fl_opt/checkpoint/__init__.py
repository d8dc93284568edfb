"""Checkpoints: what a run needs to go on after it was killed, and can trust."""

from fl_opt.checkpoint.folder import Checkpoints
from fl_opt.checkpoint.state import below, pack_state, unpack_state

__all__ = ["Checkpoints", "below", "pack_state", "unpack_state"]
