"""Ways to send updates and models: what others do, what we do, and ours with a part off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from benchmarks.time_to_accuracy.tasks import AVERAGE, Config

FULL: Final[Config] = {"downlink.mode": "full", "downlink.codec": "fp32"}
EMA: Final[Config] = {"server-average": "ema(0.8)"}
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
AVERAGED = Method(
    "FedAvgM, fp32, averaged", {**FP32, "server-average": "ema(0.8)"}, tuned_as=BASELINE
)
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
PEERS: Final = (FEDAVG, AVERAGED, INT8, BY_HAND, STC, STC_TUNED, EDEN, EDEN_LEAN)


def ours(name: str, up: float, down: float, mode: str = "per-client") -> Method:
    """Return a method of ours: top-k signs up, ``ecsq`` down, the model averaged over rounds.

    Parameters
    ----------
    name : str
    up : float
        Share of the entries of an update.
    down : float
        Bits a parameter of the difference that a client is sent.
    mode : str
        Of the downlink.
    """
    config = coded(f"topk({up}) | ternary", f"ecsq({down})", mode)
    return Method(name, {**config, **EMA}, tuned_as=BASELINE)


BALANCED = ours("balanced", 0.02, 0.5)
SMALLEST = ours("smallest", 0.01, 0.35)
CAREFUL = ours("careful: up .1, down 1", 0.1, 1.0)
OURS: Final = (BALANCED, SMALLEST, CAREFUL)
FASTEST = Method(
    "fastest", {**coded("auto", "auto"), **EMA, "balance": "equal-time"}, tuned_as=BASELINE
)
OVER_SELECTED = Method(
    "auto, 13 asked for 10",
    {**coded("auto", "auto"), **EMA, "round.over-selection": 1.3},
    tuned_as=BASELINE,
)
WAITING: Final = (FASTEST, OVER_SELECTED)
"""Who is waited for depends on the links, so they are run on each of them."""

CANDIDATES: Final = (
    *(
        ours(f"up {up}, down {down}", up, down)
        for up, down in ((0.01, 0.5), (0.05, 0.5), (0.05, 0.35), (0.02, 0.75))
    ),
    ours("auto mode", 0.02, 0.5, "auto"),
    ours("shared, by rate", 0.02, 0.5, "shared"),
    Method(
        "shared, step 1/128",
        {**coded("topk(0.02) | ternary", "ecsq(step=0.0078125)", "shared"), **EMA},
        tuned_as=BASELINE,
    ),
    Method("ema(.9)", {**BALANCED.config, "server-average": "ema(0.9)"}, tuned_as=BASELINE),
    Method(
        "up ecsq(.16)", {**BALANCED.config, "uplink.codec": "ecsq(0.16)"}, tuned_as=BASELINE
    ),
    Method(
        "residual halved",
        {**BALANCED.config, "uplink.feedback": "residual(0.5)"},
        tuned_as=BASELINE,
    ),
    Method(
        "step ahead",
        {**BALANCED.config, "uplink.feedback": "step_ahead(0.5)"},
        tuned_as=BASELINE,
    ),
    Method("DGC", {**BALANCED.config, "uplink.feedback": "dgc(0.5)"}, tuned_as=BASELINE),
    Method(
        "down .35, small arrays 2",
        {**BALANCED.config, "downlink.codec": "ecsq(0.35); size<20000: ecsq(2.0)"},
    ),
)
BY_BANDWIDTH: Final = (
    Method("auto both ways", {**coded("auto", "auto(0.25, 2.0)"), **EMA}, tuned_as=BASELINE),
    *(
        ours(f"fixed: up {up}, down {down}", up, down)
        for up, down in ((0.04, 1.0), (0.02, 0.5), (0.01, 0.35), (0.005, 0.25))
    ),
)
"""A codec for each client, and the same for all."""


def without() -> tuple[Method, ...]:
    """Return the balanced profile with one part off at a time, or another in its place."""
    return (
        Method("without: average over rounds", {**BALANCED.config, "server-average": "none"}),
        Method("without: coded uplink", {**BALANCED.config, "uplink.codec": "none"}),
        Method("without: coded downlink", {**BALANCED.config, **FULL}),
        Method("without: server momentum", BALANCED.config, dict(AVERAGE)),
        Method(
            "without: entropy code (Golomb-Rice, packed)",
            {**BALANCED.config, "uplink.codec": "topk(0.02) | ternary | rice"},
        ),
        Method("with: residual", {**BALANCED.config, "uplink.feedback": "residual"}),
        Method(
            "top-k values in fp32", {**BALANCED.config, "uplink.codec": "topk(0.02) | fp32"}
        ),
    )
