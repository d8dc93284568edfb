"""A recurrent language model of characters."""

from __future__ import annotations

import torch
from torch import nn

from fl_opt.data import TaskInfo
from fl_opt.models.fit import require_kind

_EMBEDDING = 32
_HIDDEN = 128


class CharLM(nn.Module):
    """Embedding, one GRU layer and a linear layer.

    Parameters
    ----------
    vocabulary : int
        Number of characters.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, _EMBEDDING)
        self.recurrent = nn.GRU(_EMBEDDING, _HIDDEN, batch_first=True)
        self.output = nn.Linear(_HIDDEN, vocabulary)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Score the next character at each position.

        Parameters
        ----------
        codes : torch.Tensor
            int64, shape ``(n, window)``.

        Returns
        -------
        torch.Tensor
            Logits, float32, shape ``(n, window, vocabulary)``.
        """
        states, _ = self.recurrent(self.embedding(codes))
        logits: torch.Tensor = self.output(states)
        return logits


def char_lm(info: TaskInfo) -> nn.Module:
    """Build a :class:`CharLM` for the vocabulary of the data.

    Raises
    ------
    ModelError
        If the data is not text.
    """
    require_kind("char_lm", info, "text")
    return CharLM(info.num_classes)
