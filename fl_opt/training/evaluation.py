"""Loss and accuracy of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fl_opt.data import AnyExamples
from fl_opt.training.loss import prediction_loss

_BATCH = 128


@dataclass(frozen=True)
class EvaluationResult:
    """How good a model is on some examples.

    Attributes
    ----------
    loss : float
        Mean cross entropy in nats; 0 without examples.
    accuracy : float
        Fraction of predictions that are right; 0 without examples.
    num_examples : int
    """

    loss: float
    accuracy: float
    num_examples: int


def evaluate(model: nn.Module, examples: AnyExamples) -> EvaluationResult:
    """Evaluate a model on the device it is on; its training mode is left as it was.

    Parameters
    ----------
    model : torch.nn.Module
    examples : Examples or StreamedExamples
        May be empty.
    """
    if not len(examples):
        return EvaluationResult(0.0, 0.0, 0)
    device = next(model.parameters()).device
    loss = torch.zeros((), device=device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    num_predictions = 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(examples), _BATCH):
            batch = examples.batch(start, start + _BATCH).to(device)
            logits = model(batch.inputs)
            loss += prediction_loss(logits, batch.targets) * len(batch)
            right += (logits.argmax(dim=-1) == batch.targets).sum()
            num_predictions += batch.targets.numel()
    model.train(was_training)
    count = len(examples)
    return EvaluationResult(float(loss) / count, int(right) / num_predictions, count)
