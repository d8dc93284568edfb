"""When a message, or the reply to it, is taken to be lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FACTOR: Final = 3.0


@dataclass
class Patience:
    """Waits three times as long as the slowest reply has taken so far.

    Networks lose messages without a word. A client that has not answered is left alone as long
    as it may still be at work; then it can be asked again. One that turns out to be slower than
    all others is waited for longer from then on.

    Attributes
    ----------
    longest : float
        Seconds that the slowest reply has taken; 0 before there was one.
    """

    longest: float = 0.0

    def observe(self, seconds: float) -> None:
        """Learn how long a reply has taken."""
        if math.isfinite(seconds):
            self.longest = max(self.longest, seconds)

    def is_over(self, seconds: float) -> bool:
        """Say whether a client that has not answered for so long need not be waited for."""
        return bool(self.longest) and seconds > FACTOR * self.longest
