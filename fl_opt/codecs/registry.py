"""Every kind of levels that a payload may name, by its number on the wire."""

from __future__ import annotations

from typing import Final

from fl_opt.codecs import levels
from fl_opt.codecs.ecsq import Multiples
from fl_opt.codecs.eden import Rotated
from fl_opt.codecs.fp8 import Eight
from fl_opt.codecs.levels import Levels
from fl_opt.codecs.lloyd import Lloyd

LEVELS: Final[dict[int, type[Levels]]] = {
    kind.wire_id: kind
    for kind in (
        levels.Single,
        levels.Half,
        levels.Brain,
        levels.Uniform,
        levels.Signs,
        Eight,
        Lloyd,
        Rotated,
        Multiples,
    )
}
