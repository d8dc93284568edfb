"""Who takes part in a round.

``build_selection("available | oort(alpha=1)", seed)`` builds a policy from a spec. Policies
learn from a :class:`Report` on each training request. ``uniform`` and
``round-robin`` choose all clients equally often, whatever they report. With any other policy
the model follows some clients more than the rest.

===================  ==========================================================
``uniform``          every client with the same probability
``power-of-choice``  the highest losses among a few candidates
``oort``             a high loss on many examples, in a short time
``tiers``            clients that are equally fast, together
``importance``       in proportion to the norm of the last update
``round-robin``      everybody in turn
``available``        a filter before any of these: clients that fail have a rest
===================  ==========================================================
"""

from strategies.selection.base import Report, Selection
from strategies.selection.build import SELECTIONS, build_selection
from strategies.selection.uniform import UniformSelection

__all__ = ["SELECTIONS", "Report", "Selection", "UniformSelection", "build_selection"]
