"""Training loop of one rank: micro-steps, epochs, and the window that times the phases."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sagebench.engines.base import Batch, Engine
from sagebench.grid.trial import Trial
from sagebench.measure.clocks import PhaseClock
from sagebench.models.base import touch_parameters
from sagebench.operations import runs_kernels
from sagebench.records import Epoch
from sagebench.sampling.order import SeedOrder
from sagebench.training.distributed import Communicator, Progress


class LossModule(nn.Module):
    """Module that DDP wraps: forward gives (summed cross-entropy, correct predictions) of a
    micro-batch.

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


class EpochSums:
    """Loss, counts and times of an epoch so far, on one rank: enough to go on with it.

    micro_steps: how many are done. time_s, wait_s: in the epoch, and therein for its samples.
    resumed: whether the epoch was the first of a job that continues another.
    """

    def __init__(self, epoch: int, layers: int, device: torch.device) -> None:
        self.epoch = epoch
        self.micro_steps = 0
        self.time_s = 0.0
        self.wait_s = 0.0
        self.resumed = False
        self._layers = layers
        self._losses = torch.zeros(2, dtype=torch.float64, device=device)  # loss, correct
        # micro-batches, seeds, nodes, edges, nodes of each hop, edges of each hop
        self._counts = torch.zeros(4 + (layers + 1) + layers, dtype=torch.int64)

    @property
    def nodes(self) -> int:
        return int(self._counts[2])

    @property
    def edges(self) -> int:
        return int(self._counts[3])

    def start_clock(self) -> None:
        synchronise_device(self._losses.device)
        self._started_at = time.perf_counter()

    def stop_clock(self) -> None:
        synchronise_device(self._losses.device)
        self.time_s += time.perf_counter() - self._started_at

    def add(self, batch: Batch, loss: Tensor, correct: Tensor) -> None:
        """Count a micro-batch; its loss and correct predictions stay on the device."""
        self.micro_steps += 1
        self._losses[0] += loss
        self._losses[1] += correct
        nodes, edges = batch.nodes_per_hop, batch.edges_per_hop
        seeds = len(batch.labels)
        self._counts += torch.tensor([seeds > 0, seeds, sum(nodes), sum(edges), *nodes, *edges])

    def record(self, communicator: Communicator, steps: int, learning_rate: float) -> Epoch:
        """The figures of all ranks, the times of the slowest; a collective."""
        device = self._losses.device
        figures = communicator.sum(
            torch.cat([self._losses.cpu(), self._counts]).to(device)
        ).tolist()
        time_s, wait_s = communicator.max(
            torch.tensor([self.time_s, self.wait_s], dtype=torch.float64, device=device)
        ).tolist()
        loss, correct, micro_batches, seeds, nodes, edges = figures[:6]
        hops = [number / micro_batches for number in figures[6:]]
        return Epoch(
            epoch=self.epoch,
            time_s=time_s,
            micro_batches=int(micro_batches),
            loss=loss / seeds,
            train_accuracy=correct / seeds,
            seeds=int(seeds),
            nodes=int(nodes),
            edges=int(edges),
            nodes_per_hop=hops[: self._layers + 1],
            edges_per_hop=hops[self._layers + 1 :],
            sampling_wait_s=wait_s,
            resumed=self.resumed,
            steps=steps,
            learning_rate=learning_rate,
        )

    def state(self) -> dict[str, Any]:
        """State for a checkpoint: CPU tensors and plain types."""
        return {**vars(self), "_losses": self._losses.cpu()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same trial."""
        vars(self).update(state, _losses=state["_losses"].to(self._losses.device))


@dataclass(eq=False)
class Trainer:
    """Runs an engine's model over the seed order, alike on every rank; DDP averages the gradients
    over the ranks during backward."""

    trial: Trial
    engine: Engine
    train_nodes: np.ndarray
    communicator: Communicator
    clock: PhaseClock
    progress: Progress

    def __post_init__(self) -> None:
        trial, self.device = self.trial, self.communicator.device
        self.order = SeedOrder(
            self.train_nodes, trial.batch_size, trial.accumulation, trial.ranks, trial.seed
        )
        self.micro_steps_per_epoch = self.order.steps_per_epoch * trial.accumulation
        # linear: Goyal et al. 2017
        scaling = {"linear": trial.ranks, "sqrt": math.sqrt(trial.ranks), "none": 1}
        self.learning_rate = trial.learning_rate * scaling[trial.learning_rate_scaling]
        # One kernel for all parameters, where the step has kernels at all.
        fused = True if runs_kernels(self.device) else None
        parameters = self.engine.model.parameters()
        self.optimizer = torch.optim.Adam(
            parameters, lr=self.learning_rate, weight_decay=trial.weight_decay, fused=fused
        )
        self.module = LossModule(self.engine.model)
        self._parallel: DistributedDataParallel | None = None
        if self.communicator.world_size > 1:
            self._parallel = DistributedDataParallel(
                self.module,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
            )

    def warm_up(self) -> None:
        """Compile and load what a step needs, with one seed node, and forget its gradients.

        Through DDP too: it cuts its buckets anew after its first backward, in the order of the
        gradients, and sums of three ranks or more depend on the cuts. So the first step of a
        process has the same ones as any other.
        """
        first = next(self.order.micro_batches(1, 0))
        first = replace(first, seeds=first.seeds[:1], step_seeds=1)
        self.micro_step(self.engine.smallest_batch(first), synchronise=True)
        self.optimizer.zero_grad()

    def micro_step(self, batch: Batch, *, synchronise: bool) -> tuple[Tensor, Tensor]:
        """Forward and backward of a micro-batch; gradients accumulate.

        Returns (summed loss, correct predictions) as tensors on the device: reading them would
        wait for it. The gradients of a whole step are those of the mean loss over all of its seed
        nodes, whichever ranks and micro-batches had them: DDP averages over the ranks, hence the
        factor `ranks`.
        """
        module = self._parallel or self.module
        # PyG's path draws its dropout from torch's stream; ours from the batch's key.
        torch.manual_seed(batch.key)
        wait = nullcontext() if synchronise or self._parallel is None else self._parallel.no_sync()
        with wait:
            with self.clock("forward"):
                loss, correct = module(batch.inputs, batch.labels)
            with self.clock("backward"):
                (loss * (self.trial.ranks / batch.micro_batch.step_seeds)).backward()
        return loss.detach(), correct

    def optimizer_step(self) -> None:
        with self.clock("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()

    def epoch(
        self,
        sums: EpochSums,
        stops: Callable[[EpochSums], bool] = lambda _: False,
        after_step: Callable[[], None] = lambda: None,
    ) -> Epoch | None:
        """One pass over the training nodes, on from what `sums` has of it.

        stops: asked before each micro-step whether to leave it at that; then there is no record.
        after_step: called after each optimizer step.
        Returns the epoch's record: figures of all ranks, the time of the slowest.
        """
        self.engine.model.train()
        self.communicator.barrier()
        sums.start_clock()
        micro_batches = self.order.micro_batches(sums.epoch, self.communicator.rank)
        stream = self.engine.stream(islice(micro_batches, sums.micro_steps, None))
        left = self.micro_steps_per_epoch - sums.micro_steps
        for _ in self.progress.over(range(left), left, f"epoch {sums.epoch}"):
            if stops(sums):
                break
            asked = time.perf_counter()
            with self.clock("sampling"):
                batch = next(stream)
            sums.wait_s += time.perf_counter() - asked
            last = batch.micro_batch.last_of_step
            loss, correct = self.micro_step(batch, synchronise=last)
            sums.add(batch, loss, correct)
            if last:
                self.optimizer_step()
                after_step()
        sums.stop_clock()
        if sums.micro_steps < self.micro_steps_per_epoch:
            return None
        with self.clock("synchronisation"):
            return sums.record(self.communicator, self.order.steps_per_epoch, self.learning_rate)

    def time_phases(self, epoch: int) -> dict[str, Any] | None:
        """Median seconds of each phase, one after the other with overlap off.

        Runs up to `phase_window_steps` micro-steps, all of whole optimizer steps, and changes the
        weights: to be called when nothing is trained or evaluated any more. `sampling_s`,
        `data_s`, `forward_s`, `backward_s` and `waiting_s` (for the slowest rank) are of a
        micro-step, `synchronisation_s` and `optimizer_s` of an optimizer step; with one rank
        nothing waits or synchronises: null. The median is over a rank's micro-steps, and of the
        ranks' medians the mean, as only together do work and waiting make a step: a rank that is
        slower than the others does not wait. None where the training nodes do not fill a step.
        """
        whole_steps = len(self.order.train_nodes) // self.order.seeds_per_step
        steps = min(self.trial.phase_window_steps, whole_steps * self.trial.accumulation)
        if not steps:
            return None
        self.engine.model.train()
        self.clock.timed = True
        micro_batches = self.order.micro_batches(epoch, self.communicator.rank)
        for micro_batch in islice(micro_batches, steps):
            with self.clock("sampling"):
                sampled = self.engine.sample(micro_batch)
            with self.clock("data"):
                batch = self.engine.load(sampled)
            self.micro_step(batch, synchronise=False)
            if self.communicator.world_size > 1:
                with self.clock("waiting"):  # so that what follows is the transfer alone
                    self.communicator.barrier()
                with self.clock("synchronisation"):
                    self._average_gradients()
            self.optimizer_step()
        self.clock.timed = False
        medians = self.communicator.gather(self.clock.medians_s())  # of the same phases
        means = {f"{phase}_s": mean(rank[phase] for rank in medians) for phase in medians[0]}
        return {"micro_steps": steps, "waiting_s": None, "synchronisation_s": None, **means}

    def _average_gradients(self) -> None:
        """All-reduce of the gradients, which DDP does during backward, on its own."""
        gradients = [p.grad for p in self.engine.model.parameters() if p.grad is not None]
        flat = self.communicator.sum(torch.cat([g.reshape(-1) for g in gradients]))
        flat /= self.communicator.world_size


def synchronise_device(device: torch.device) -> None:
    """Wait for all queued work of the device (torch.cuda.synchronize)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
