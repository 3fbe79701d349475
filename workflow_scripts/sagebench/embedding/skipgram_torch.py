"""Skip-gram with negative sampling by tensor operations, on any device: the steps of `skipgram`,
up to the rounding of float32.

No sum is left to atomics: the gradients of a row are sorted by place, and `embedding_bag` adds them
in that order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, softplus

from sagebench.embedding.skipgram import BETA_1, BETA_2, EPSILON, step_size, touched_rows


class TensorSkipGram:
    """`SkipGram` on the device of `vectors`, float32 [N, D], which it trains in place."""

    def __init__(self, vectors: Tensor, context: int, learning_rate: float) -> None:
        self.vectors = vectors
        self.mean, self.square = torch.zeros_like(vectors), torch.zeros_like(vectors)
        self.steps = 0
        self.context, self.learning_rate = context, learning_rate

    @torch.no_grad()
    def step(
        self, walks: np.ndarray, negatives: np.ndarray, trained: np.ndarray | None = None
    ) -> float:
        """See `SkipGram.step`."""
        self.steps += 1
        gradients, loss, pairs = self.gradients(self._tensor(walks), self._tensor(negatives))
        if not pairs:
            return 0.0
        ids = touched_rows(walks, negatives)
        kept = ids >= 0
        if trained is not None:
            kept &= trained[ids]
        places = np.flatnonzero(kept)
        of_place, order = torch.sort(self._tensor(ids[places]), stable=True)
        rows, counts = torch.unique_consecutive(of_place, return_counts=True)
        starts = counts.cumsum(0) - counts
        total = embedding_bag(self._tensor(places)[order], gradients, starts, mode="sum")
        self._update(rows, total / pairs)
        return loss / pairs

    def gradients(self, walks: Tensor, negatives: Tensor) -> tuple[Tensor, float, int]:
        """Gradients of the sum of the losses, [rows as `touched_rows` has them, D]; that sum; the
        number of pairs."""
        positions, dimension = walks.shape[1], self.vectors.shape[1]
        centers = positions + 1 - self.context
        offset = torch.arange(positions, device=walks.device) - torch.arange(
            centers, device=walks.device
        ).unsqueeze(1)
        node = walks[:, :centers, None]
        pair = (
            (offset > 0)
            & (offset < self.context)
            & (walks >= 0)[:, None]
            & (walks[:, None] != node)
        )
        x = self.vectors[walks.clamp(min=0)]
        at_center = x[:, :centers]
        out = x.new_zeros(len(walks), positions + negatives[0].numel(), dimension)
        of_walk, of_drawn = out[:, :positions], out[:, positions:].unflatten(1, negatives.shape[1:])
        loss = torch.zeros((), dtype=torch.float64, device=x.device)
        rest = (
            (
                self.vectors[negatives[:, k]],
                pair[:, :, 1:] & (negatives[:, k, None] != node),
                of_drawn[:, k],
                -1,
            )
            for k in range(negatives.shape[1])
        )
        for other, where, target, sign in ((x, pair, of_walk, 1), *rest):
            score = sign * (at_center @ other.mT)
            slope = torch.where(where, -sign * torch.sigmoid(-score), 0)
            target += slope.mT @ at_center
            of_walk[:, :centers] += slope @ other
            loss += torch.where(where, softplus(-score), 0).sum(dtype=torch.float64)
        return out.flatten(0, 1), loss.item(), int(pair.sum())

    def _update(self, rows: Tensor, gradient: Tensor) -> None:
        mean, square = self.mean[rows], self.square[rows]
        mean += (gradient - mean) * (1 - BETA_1)
        square += (gradient * gradient - square) * (1 - BETA_2)
        self.mean[rows], self.square[rows] = mean, square
        rate = step_size(self.learning_rate, self.steps)
        self.vectors[rows] -= rate * mean / (square.sqrt() + EPSILON)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.vectors.device)
