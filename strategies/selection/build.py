"""Specs of selections, such as ``"available | oort(alpha=1)"``.

Grammar::

    spec = { filter "|" } ( policy | filter )

Filters stand before a policy, each once. A spec that ends with a filter means the uniform
policy behind it.
"""

from __future__ import annotations

from typing import Any, Final

from fl_opt.codecs.grammar import Cursor, construct
from strategies.selection.available import Available
from strategies.selection.base import Filter, Policy, Selection
from strategies.selection.importance import Importance
from strategies.selection.oort import Oort
from strategies.selection.power_of_choice import PowerOfChoice
from strategies.selection.round_robin import RoundRobin
from strategies.selection.tiers import Tiers
from strategies.selection.uniform import Uniform

POLICIES: Final[dict[str, type[Policy]]] = {
    kind.name: kind for kind in (Uniform, PowerOfChoice, Oort, Tiers, Importance, RoundRobin)
}
FILTERS: Final[dict[str, type[Filter]]] = {Available.name: Available}
SELECTIONS: Final[dict[str, type[Policy] | type[Filter]]] = {**POLICIES, **FILTERS}
"""Settings by the names that stand in specs."""


def build_selection(spec: str, seed: int) -> Selection:
    """Build the selection that a spec describes.

    Parameters
    ----------
    spec : str
        A name of :data:`SELECTIONS` and its arguments, in the grammar of
        :mod:`fl_opt.codecs.grammar`; filters go before it, with a ``|``.
    seed : int
        Of the run, in [0, 2**32).

    Raises
    ------
    ConfigError
        Names the position in the spec (from 1) and the alternatives.
    """
    policy, filters = _read(spec)
    selection = policy.build(seed)
    for one in reversed(filters):
        selection = one.wrap(selection)
    return selection


def _read(spec: str) -> tuple[Policy, list[Filter]]:
    cursor = Cursor(spec, "selection spec")
    known = ", ".join(SELECTIONS)
    filters: list[Filter] = []
    policy: Policy = Uniform()
    while True:
        start, name, arguments = cursor.call(f"a name is expected: {known}")
        if name not in SELECTIONS:
            raise cursor.error(f"unknown selection {name!r}; known are {known}", start)
        settings: Any = construct(cursor, start, SELECTIONS[name], arguments)
        if name in POLICIES:
            policy = settings
            cursor.finish(f"the end is expected: before a '|' stands only {', '.join(FILTERS)}")
            break
        if any(one.name == name for one in filters):
            raise cursor.error(f"{name!r} is given twice", start)
        filters.append(settings)
        if not cursor.take("|"):
            cursor.finish("'|' or the end is expected")
            break
    return policy, filters
