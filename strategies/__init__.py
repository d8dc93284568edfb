"""Strategies that federate a model through fl-opt's codecs, on Flower's message API."""

from strategies.base import CompressedStrategy
from strategies.fedavg import CompressedFedAvg
from strategies.registry import STRATEGIES, build_strategy

__all__ = ["STRATEGIES", "CompressedFedAvg", "CompressedStrategy", "build_strategy"]
