"""Adam (Kingma, Ba 2015), by torch's own function for it.

The class torch.optim.Adam loads torch's compiler when it is made, a second of a trial's start, for
nothing that is used here. The arithmetic is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """step() and zero_grad() as of torch.optim.Adam, without weight decay."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.parameters = list(parameters)
        self.lr = lr
        self._means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._steps = [torch.zeros(()) for _ in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        every = zip(self.parameters, self._means, self._squares, self._steps, strict=True)
        having = [values for values in every if values[0].grad is not None]
        parameters, means, squares, steps = map(list, zip(*having, strict=True))
        adam(
            parameters,
            [parameter.grad for parameter in parameters],
            means,
            squares,
            [],
            steps,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.lr,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def state(self) -> dict[str, list[Tensor]]:
        """What `step` goes on from, besides the parameters."""
        return {"means": self._means, "squares": self._squares, "steps": self._steps}

    def restore(self, state: dict[str, list[Tensor]]) -> None:
        """Go on from a `state` of the same parameters, on whichever device."""
        for name, values in self.state().items():
            for mine, saved in zip(values, state[name], strict=True):
                mine.copy_(saved)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
