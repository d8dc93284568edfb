"""The virtual time of a synchronous run on other links, from what each client exchanged.

A client's time is latency, download, work, upload and latency; only the transfers change. A
round takes as long as its last client. So one run tells the time on all links that are alike
for all clients; the clock of the engine agrees with it at the rates of the run (see the
tests).
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.time_to_accuracy.runs import Step, Trace


@dataclass(frozen=True)
class Link:
    """Megabits a second, down and up."""

    down: float
    up: float

    def seconds(self, bytes_down: float, bytes_up: float) -> float:
        """Return what both transfers take."""
        return 8e-6 * (bytes_down / self.down + bytes_up / self.up)


def link_of(trace: Trace) -> Link:
    """Return the link that a run was carried out on."""
    config = trace.config
    return Link(
        float(config["simulation.downlink-mbps"]), float(config["simulation.uplink-mbps"])
    )


def round_seconds(trace: Trace, link: Link) -> list[float]:
    """Return the virtual seconds of each round on links of another rate."""
    own = link_of(trace)
    return [_seconds(step, own, link) for step in trace.steps]


def _seconds(step: Step, own: Link, link: Link) -> float:
    if not step.answers:
        return step.virtual_seconds
    # Flower's envelope, which differs little from client to client.
    more_down = (step.message_bytes_down - step.bytes_down) / len(step.answers)
    more_up = (step.message_bytes_up - step.bytes_up) / len(step.answers)
    slowest = max(answer.seconds for answer in step.answers)
    changed = max(
        answer.seconds
        + link.seconds(answer.bytes_down + more_down, answer.bytes_up + more_up)
        - own.seconds(answer.bytes_down + more_down, answer.bytes_up + more_up)
        for answer in step.answers
    )
    return step.virtual_seconds - slowest + changed
