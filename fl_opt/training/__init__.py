"""Local training and evaluation with torch."""

from fl_opt.training.arrays import get_arrays, set_arrays
from fl_opt.training.evaluation import EvaluationResult, evaluate
from fl_opt.training.loss import prediction_loss
from fl_opt.training.optimizer import build_optimizer, find_device
from fl_opt.training.trainer import TrainResult, train

__all__ = [
    "EvaluationResult",
    "TrainResult",
    "build_optimizer",
    "evaluate",
    "find_device",
    "get_arrays",
    "prediction_loss",
    "set_arrays",
    "train",
]
