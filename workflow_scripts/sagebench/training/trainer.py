"""The training of one rank: micro-steps, epochs, and the window that times the phases."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from sagebench.grid.trial import Trial
from sagebench.measure.clocks import PhaseClock
from sagebench.sampling.order import SeedOrder
from sagebench.training.adam import Adam
from sagebench.training.distributed import Communicator
from sagebench.training.engines import Batch, Engine
from sagebench.training.progress import Progress
from sagebench.training.step import LossModule


class Trainer:
    """Runs an engine's model over the seed order, alike on every rank."""

    def __init__(
        self,
        trial: Trial,
        engine: Engine,
        train_nodes: np.ndarray,
        communicator: Communicator,
        clock: PhaseClock,
        progress: Progress,
    ) -> None:
        self.trial = trial
        self.engine = engine
        self.communicator = communicator
        self.device = communicator.device
        self.clock = clock
        self.progress = progress
        self.order = SeedOrder(
            train_nodes, trial.batch_size, trial.accumulation, trial.ranks, trial.seed
        )
        self.module = LossModule(engine.model)
        self.learning_rate = scaled_learning_rate(trial)
        self.optimizer = Adam(engine.model.parameters(), lr=self.learning_rate)
        self.on_first_step: Callable[[], None] = lambda: None
        self._parallel: DistributedDataParallel | None = None

    def parallelise(self) -> None:
        """Wrap the module so that gradients are averaged over the ranks during backward."""
        if self.communicator.world_size > 1:
            self._parallel = DistributedDataParallel(
                self.module,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
            )

    def warm_up(self) -> None:
        """Compile and load what a step needs, with one seed node, and forget its gradients."""
        first = next(self.order.micro_batches(1, 0))
        batch = self.engine.load(self.engine.sample(first._replace(seeds=first.seeds[:1])))
        loss, _ = self.module(batch.inputs, batch.labels)
        loss.backward()
        self.optimizer.zero_grad()

    def micro_step(self, batch: Batch, *, synchronise: bool) -> tuple[torch.Tensor, torch.Tensor]:
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

    def epoch(self, epoch: int, check: Callable[[], None]) -> dict[str, Any]:
        """One pass over the training nodes; `check` is called before each micro-step.

        Returns the epoch's record: figures of all ranks, the time of the slowest.
        """
        self.engine.model.train()
        wait_s = 0.0
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, correct
        counts = np.zeros(4, dtype=np.int64)  # micro-batches, seeds, nodes, edges
        nodes = np.zeros(self.trial.layers + 1, dtype=np.int64)
        edges = np.zeros(self.trial.layers, dtype=np.int64)

        self.communicator.barrier()
        synchronise_device(self.device)
        start = time.perf_counter()
        total = self.order.steps_per_epoch * self.trial.accumulation
        stream = self.engine.stream(self.order.micro_batches(epoch, self.communicator.rank))
        batches = self.progress.over(range(total), total, f"epoch {epoch}")
        for _ in batches:
            check()
            asked = time.perf_counter()
            with self.clock("sampling"):
                batch = next(stream)
            wait_s += time.perf_counter() - asked
            last = batch.micro_batch.last_of_step
            loss, correct = self.micro_step(batch, synchronise=last)
            sums[0] += loss
            sums[1] += correct
            if last:
                self.optimizer_step()
                self.on_first_step()
                self.on_first_step = lambda: None
            nodes += batch.nodes_per_hop
            edges += batch.edges_per_hop
            counts += (
                len(batch.labels) > 0,
                len(batch.labels),
                sum(batch.nodes_per_hop),
                sum(batch.edges_per_hop),
            )
        synchronise_device(self.device)
        time_s = time.perf_counter() - start

        with self.clock("synchronisation"):
            figures = self.communicator.sum(
                torch.cat([sums.cpu(), torch.from_numpy(np.concatenate([counts, nodes, edges]))])
                .double()
                .to(self.device)
            ).tolist()
            time_s, wait_s = self.communicator.max(
                torch.tensor([time_s, wait_s], dtype=torch.float64, device=self.device)
            ).tolist()
        loss_sum, correct_sum, micro_batches, seeds, node_sum, edge_sum = figures[:6]
        hops = figures[6:]
        return {
            "epoch": epoch,
            "time_s": time_s,
            "steps": self.order.steps_per_epoch,
            "micro_batches": int(micro_batches),
            "loss": loss_sum / seeds,
            "train_accuracy": correct_sum / seeds,
            "seeds": int(seeds),
            "nodes": int(node_sum),
            "edges": int(edge_sum),
            "nodes_per_hop": [n / micro_batches for n in hops[: self.trial.layers + 1]],
            "edges_per_hop": [n / micro_batches for n in hops[self.trial.layers + 1 :]],
            "learning_rate": self.learning_rate,
            "sampling_wait_s": wait_s,
            "validation_accuracy": None,
            "evaluation_s": None,
            "resumed": False,
        }

    def time_phases(self, epoch: int) -> dict[str, Any] | None:
        """Median seconds of each phase, one after the other with overlap off.

        Runs up to `phase_window_steps` micro-steps, all of whole optimizer steps, and changes the
        weights: to be called when nothing is trained or evaluated any more. `sampling_s`,
        `data_s`, `forward_s` and `backward_s` are of a micro-step, `synchronisation_s` (null with
        one rank) and `optimizer_s` of an optimizer step. The median is over this rank's
        micro-steps. None where the training nodes do not fill a step.
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
                self.communicator.barrier()  # what follows is the transfer, not waiting for others
                with self.clock("synchronisation"):
                    self._average_gradients()
            self.optimizer_step()
        self.clock.timed = False
        medians = {f"{phase}_s": seconds for phase, seconds in self.clock.medians_s().items()}
        return {"micro_steps": steps, "synchronisation_s": None, **medians}

    def _average_gradients(self) -> None:
        """What DDP does during backward, on its own."""
        gradients = [p.grad for p in self.engine.model.parameters() if p.grad is not None]
        flat = self.communicator.sum(torch.cat([g.reshape(-1) for g in gradients]))
        flat /= self.communicator.world_size


def scaled_learning_rate(trial: Trial) -> float:
    """The learning rate for the trial's number of ranks (linear: Goyal et al. 2017)."""
    factor = {
        "linear": trial.ranks,
        "sqrt": math.sqrt(trial.ranks),
        "none": 1,
    }[trial.learning_rate_scaling]
    return trial.learning_rate * factor


def synchronise_device(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
