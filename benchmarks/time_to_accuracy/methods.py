"""Ways to send updates and models: what others do, what we do, and ours with a part off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from benchmarks.time_to_accuracy.tasks import AVERAGE, Config

FULL: Final[Config] = {"downlink.mode": "full", "downlink.codec": "fp32"}
FP32: Final[Config] = {**FULL, "uplink.codec": "none", "uplink.feedback": "none"}


@dataclass(frozen=True)
class Method:
    """Settings under a name; those of the task's grid come after them, then ``fixed``.

    Attributes
    ----------
    name : str
    config : mapping
    fixed : mapping
        Settings that the method is published with, which are not tuned.
    tuned_as : Method or None
        Whose tuning it takes over; None: it has its own.
    """

    name: str
    config: Config
    fixed: Config = field(default_factory=dict)
    tuned_as: Method | None = None


def coded(up: str, down: str, mode: str = "per-client", feedback: str = "none") -> Config:
    """Return the settings of both directions."""
    return {
        "uplink.codec": up,
        "uplink.feedback": feedback,
        "downlink.mode": mode,
        "downlink.codec": down,
    }


BASELINE = Method("FedAvgM, fp32", FP32)
FEDAVG = Method("FedAvg, fp32", FP32, dict(AVERAGE))
INT8 = Method("int8 both ways", coded("int8", "int8", "shared"), tuned_as=BASELINE)
BY_HAND = Method(
    "top-k 10% by hand",
    {**FP32, "uplink.codec": "topk(0.1) | fp32 | raw"},
    tuned_as=BASELINE,
)
_STC = "topk({}) | ternary | rice"
STC = Method(
    "STC as published",
    coded(_STC.format(0.01), _STC.format(0.01), "shared", "residual"),
    dict(AVERAGE),
)
STC_TUNED = Method(
    "STC, server momentum",
    coded(_STC.format(0.02), _STC.format(0.05), "shared", "residual"),
)
EDEN = Method("EDEN 1 bit up, 2 bits down", coded("eden(1)", "eden(2)"))
EDEN_LEAN = Method("EDEN 1 bit both ways", coded("eden(1)", "eden(1)"))
BALANCED = Method("balanced", coded("topk(0.02) | ternary", "ecsq(0.75)"))
SMALLEST = Method("smallest", coded("topk(0.01) | ternary", "ecsq(0.5)"), tuned_as=BALANCED)
CAREFUL = Method("careful", coded("topk(0.05) | ternary", "ecsq(1.5)"), tuned_as=BALANCED)
OURS: Final = (BALANCED, SMALLEST, CAREFUL)
PEERS: Final = (FEDAVG, INT8, BY_HAND, STC, STC_TUNED, EDEN, EDEN_LEAN)

UP: Final = "topk(0.02) | ternary"
AVERAGED: Final[Config] = {"server-average": "ema(0.8)"}
CANDIDATES: Final = (
    Method("averaged, fp32", {**FP32, **AVERAGED}),
    Method("averaged, ema(.9)", {**BALANCED.config, "server-average": "ema(0.9)"}),
    Method("averaged, ema(.8)", {**BALANCED.config, **AVERAGED}),
    *(
        Method(
            f"averaged, up {up}, down {down}",
            {**coded(f"topk({up}) | ternary", f"ecsq({down})"), "server-average": "ema(0.9)"},
        )
        for up, down in ((0.05, 0.5), (0.05, 0.35), (0.1, 0.5), (0.03, 0.35))
    ),
    Method("averaged, up .01, down .5", {**SMALLEST.config, **AVERAGED}),
    *(
        Method(f"up {up}, down {down}", coded(f"topk({up}) | ternary", f"ecsq({down})"))
        for up, down in ((0.02, 1.0), (0.02, 0.5), (0.01, 0.75), (0.04, 0.75))
    ),
    *(
        Method(f"shared, step 1/{n}", coded(UP, f"ecsq(step={1 / n})", "shared"))
        for n in (256, 128, 64)
    ),
    *(
        Method(f"auto mode, step 1/{n}", coded(UP, f"ecsq(step={1 / n})", "auto"))
        for n in (128, 64)
    ),
    Method("auto mode, .75 bits", coded(UP, "ecsq(0.75)", "auto")),
    Method("down .5, small arrays 2", coded(UP, "ecsq(0.5); size<20000: ecsq(2.0)")),
    Method(
        "up .01, small arrays .1, down .75",
        coded("topk(0.01) | ternary; size<20000: topk(0.1) | ternary", "ecsq(0.75)"),
    ),
    Method("up ecsq(.16)", coded("ecsq(0.16)", "ecsq(0.75)")),
    Method("residual halved", coded(UP, "ecsq(0.75)", feedback="residual(0.5)")),
    Method("step ahead", coded(UP, "ecsq(0.75)", feedback="step_ahead(0.5)")),
    Method("DGC", coded(UP, "ecsq(0.75)", feedback="dgc(0.5)")),
)
BY_BANDWIDTH: Final = (
    Method("auto both ways", coded("auto", "auto(0.25, 2.0)")),
    *(
        Method(f"fixed: {up}, {down}", coded(f"topk({up}) | ternary", f"ecsq({down})"))
        for up, down in ((0.04, 1.0), (0.02, 0.75), (0.01, 0.5), (0.005, 0.25))
    ),
)
"""A codec for each client, and the same for all."""


def without() -> tuple[Method, ...]:
    """Return the balanced profile with one part off at a time, or another in its place."""
    return (
        Method("without: coded uplink", {**BALANCED.config, "uplink.codec": "none"}),
        Method("without: coded downlink", {**BALANCED.config, **FULL}),
        Method("without: server momentum", BALANCED.config, dict(AVERAGE)),
        Method(
            "without: entropy code (Golomb-Rice, packed)",
            coded("topk(0.02) | ternary | rice", "ecsq(0.75)"),
        ),
        Method("with: residual", {**BALANCED.config, "uplink.feedback": "residual"}),
        Method(
            "top-k values in fp32", {**BALANCED.config, "uplink.codec": "topk(0.02) | fp32"}
        ),
    )
