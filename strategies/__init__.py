"""Strategies that federate a model through fl-opt's codecs, on Flower's message API."""

from strategies.base import CompressedStrategy
from strategies.fedavg import CompressedFedAvg
from strategies.fedbuff import CompressedFedAsync, CompressedFedBuff
from strategies.fednova import CompressedFedNova
from strategies.fedprox import CompressedFedProx
from strategies.registry import build_strategy
from strategies.specs import STRATEGIES
from strategies.wrapped import compressed

__all__ = [
    "STRATEGIES",
    "CompressedFedAsync",
    "CompressedFedAvg",
    "CompressedFedBuff",
    "CompressedFedNova",
    "CompressedFedProx",
    "CompressedStrategy",
    "build_strategy",
    "compressed",
]
