"""What DDP wraps: a model and its loss, in one forward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagebench.model.graphsage import touch_parameters


class LossModule(nn.Module):
    """Forward gives (summed cross-entropy, correct predictions) of a micro-batch.

    A micro-batch without seed nodes gives a zero that still depends on every parameter, so that
    its rank takes part in the gradients' all-reduce.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: tuple[Any, ...], labels: Tensor) -> tuple[Tensor, Tensor]:
        if not len(labels):
            return touch_parameters(self.model), torch.zeros((), device=labels.device)
        logits = self.model(*inputs)
        loss = F.cross_entropy(logits.float(), labels, reduction="sum")
        return loss, (logits.argmax(1) == labels).sum()
