"""Codec specs: ``"topk(0.01) | ternary"`` to a :class:`~fl_opt.codecs.base.Codec`.

Grammar::

    spec      = codec { ";" condition ":" codec }
    codec     = preset | stage { "|" stage }
    stage     = name [ "(" arguments ")" ]

Stages come in the order rate, transform, select, quantize, code. Each may be left out: there is
no target size, nothing is transformed, everything is selected, values stay single precision,
and the cheapest code is found for each payload. Codecs behind a ``;`` are for the arrays that
meet their condition; see :mod:`fl_opt.codecs.rules`.
"""

from __future__ import annotations

from typing import Any, Final

from fl_opt.codecs import blocks, code, ecsq, eden, fp8, lloyd, quantize, rate, select
from fl_opt.codecs.base import Codec, Encoder
from fl_opt.codecs.grammar import Cursor, construct
from fl_opt.codecs.lowrank import PowerSgd, ReducedCodec
from fl_opt.codecs.rules import Rule, RuledCodec
from fl_opt.errors import ConfigError

RATES: Final[dict[str, type]] = {
    kind.name: kind for kind in (rate.BitsPerParameter, rate.Bytes)
}
TRANSFORMS: Final[dict[str, type]] = {PowerSgd.name: PowerSgd}
SELECTIONS: Final[dict[str, type]] = {
    kind.name: kind
    for kind in (
        select.All,
        select.TopK,
        select.RandK,
        select.Threshold,
        select.BlockTopK,
    )
}
QUANTIZERS: Final[dict[str, type]] = {
    kind.name: kind
    for kind in (
        quantize.Fp32,
        quantize.Fp16,
        quantize.Bf16,
        blocks.Uniform,
        blocks.Qsgd,
        blocks.TernGrad,
        quantize.Sign,
        quantize.Ternary,
        fp8.Fp8,
        lloyd.LloydMax,
        eden.Eden,
        ecsq.Ecsq,
    )
}
CODERS: Final[dict[str, type]] = {
    kind.name: kind for kind in (code.Auto, code.Raw, code.Pack, code.Rice, code.Entropy)
}
PRESETS: Final[dict[str, str]] = {
    "none": "all | fp32 | raw",
    "int8": "all | uniform(bits=8)",
    "int4": "all | uniform(bits=4)",
    "stc": "topk(0.01) | ternary | rice",
    "drive": "all | eden(bits=1) | pack",
}
"""Names for whole specs."""

_STAGES: Final = {
    "rate": RATES,
    "transform": TRANSFORMS,
    "select": SELECTIONS,
    "quantize": QUANTIZERS,
    "code": CODERS,
}
_ORDER: Final = tuple(_STAGES)


def build_codec(spec: str) -> Encoder:
    """Build the codec that a spec describes.

    Parameters
    ----------
    spec : str
        Such as ``"topk(0.01) | ternary"`` or the name of a preset.

    Raises
    ------
    ConfigError
        Names the position in the spec (from 1) and the alternatives.
    """
    default, *rest = spec.split(";")
    encoder = _build_encoder(default.strip() if rest else spec)
    if not rest:
        return encoder
    return RuledCodec(spec.strip(), _without_rate(spec, encoder), tuple(map(_build_rule, rest)))


def _build_rule(text: str) -> Rule:
    condition, colon, spec = text.partition(":")
    if not colon or not condition.strip():
        raise ConfigError(f"codec rule {text.strip()!r} is not 'condition: codec'")
    return Rule(condition.strip(), _without_rate(text, _build_encoder(spec.strip())))


def _without_rate(spec: str, encoder: Encoder) -> Codec | ReducedCodec:
    if isinstance(encoder, Codec | ReducedCodec):
        return encoder
    raise ConfigError(
        f"codec spec {spec.strip()!r}: a target size cannot be combined with rules"
    )


def _build_encoder(spec: str) -> Encoder:
    """Build the codec of a spec without rules."""
    stages = _read_stages(spec)
    spec = spec.strip()
    try:
        codec = Codec(
            spec,
            stages.get("select", select.All()),
            stages.get("quantize", quantize.Fp32()),
            stages.get("code", code.Auto()),
        )
        if "rate" in stages and "transform" in stages:
            raise ConfigError("a target size cannot be combined with a transform")
        if "rate" in stages:
            return rate.RatedCodec(spec, stages["rate"], codec)
        if "transform" in stages:
            return ReducedCodec(spec, stages["transform"], codec)
    except ConfigError as error:
        raise ConfigError(f"codec spec {spec!r}: {error}") from None
    return codec


def _read_stages(spec: str) -> dict[str, Any]:
    cursor = Cursor(PRESETS.get(spec.strip(), spec), "codec spec")
    stages: dict[str, Any] = {}
    last = -1
    while True:
        start, name, arguments = cursor.call(f"a stage is expected: {_alternatives()}")
        kind = _kind_of(cursor, start, name)
        if _ORDER.index(kind) <= last:
            raise cursor.error(
                f"{name!r} cannot come here: the order is {', '.join(_ORDER)}, each once", start
            )
        last = _ORDER.index(kind)
        stages[kind] = construct(cursor, start, _STAGES[kind][name], arguments)
        if not cursor.take("|"):
            break
    cursor.finish("'|' or the end is expected")
    return stages


def _kind_of(cursor: Cursor, start: int, name: str) -> str:
    for kind, table in _STAGES.items():
        if name in table:
            return kind
    if name in PRESETS:
        raise cursor.error(f"{name!r} is a preset and stands alone: {PRESETS[name]!r}", start)
    raise cursor.error(f"unknown stage {name!r}; known are {_alternatives()}", start)


def _alternatives() -> str:
    stages = "; ".join(f"{kind}: {', '.join(table)}" for kind, table in _STAGES.items())
    return f"{stages}; presets: {', '.join(PRESETS)}"
