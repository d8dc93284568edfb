"""The server's side of references: what each client holds, and what brings it up to date.

==============  ========================================================================
``full``        the whole model in every message; clients keep nothing
``shared``      one reference for all, moved by coded deltas; clients that missed some get
                them in one, exactly
``per-client``  a reference of its own for each client, and the coded difference to it
``auto``        shared until a client's catch-up takes more bytes than a difference of its own
==============  ========================================================================
"""

from fl_opt.exchange.downlink.base import Delivery, Downlink, Kind
from fl_opt.exchange.downlink.build import MODES, DownlinkOptions, build_downlink

__all__ = ["MODES", "Delivery", "Downlink", "DownlinkOptions", "Kind", "build_downlink"]
