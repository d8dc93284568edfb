"""Models for local training."""

from fl_opt.models.registry import MODELS, build_model

__all__ = ["MODELS", "build_model"]
