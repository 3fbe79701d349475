"""Seconds of each phase of a step: counted work over a device's rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sagebench.grid.trial import Trial
from sagebench.predict.correction import PHASES
from sagebench.predict.rates import Network, Rates
from sagebench.predict.samples import GraphFacts
from sagebench.predict.work import FLOAT, Counts, MicroStep, Use, parameters
from sagebench.predict.work_blocks import count_blocks
from sagebench.predict.work_pyg import count_pyg

OPTIMIZER_PASSES = 16
"""over the parameters: Adam reads and writes four arrays, in several operations"""


@dataclass(frozen=True)
class Case:
    """What a time is predicted of.

    counts: means over an epoch's micro-batches. placement: `mapped`, `device` or `host`, as
    outcomes have it. nodes: that the ranks are on. variation: as a Sample's.
    """

    trial: Trial
    counts: Counts
    graph: GraphFacts
    rates: Rates
    placement: str
    nodes: int = 1
    variation: float = 0.0

    @property
    def kept(self) -> str:
        """Where graph and features are; a CPU reads them in its memory in any case."""
        return "mapped" if self.trial.device == "cpu" else self.placement

    @property
    def device_threads(self) -> int:
        """As Rates.seconds wants them: 0 is the GPU."""
        return self.trial.threads_per_rank if self.trial.device == "cpu" else 0

    @property
    def network(self) -> Network:
        return self.rates.within_node if self.nodes == 1 else self.rates.between_nodes


@dataclass(frozen=True)
class Phases:
    """Seconds, one after the other: of a micro-step, the last two of an optimizer step. gather_s
    and copy_s together are the outcomes' data_s."""

    sampling_s: float
    gather_s: float
    copy_s: float
    forward_s: float
    backward_s: float
    synchronisation_s: float
    optimizer_s: float

    def to_json(self) -> dict[str, float]:
        """By the names of the outcomes' window."""
        return {
            "sampling_s": self.sampling_s,
            "data_s": self.gather_s + self.copy_s,
            "forward_s": self.forward_s,
            "backward_s": self.backward_s,
            "synchronisation_s": self.synchronisation_s,
            "optimizer_s": self.optimizer_s,
        }

    def times(self, factors: Mapping[str, float]) -> Phases:
        """Each multiplied by its factor, by the names of PHASES."""
        data = factors.get("data", 1.0)
        scaled = {
            f"{name}_s": getattr(self, f"{name}_s") * factors.get(name, 1.0)
            for name in PHASES
            if name != "data"
        }
        return Phases(gather_s=self.gather_s * data, copy_s=self.copy_s * data, **scaled)


def micro_step(case: Case) -> MicroStep:
    """The counted work of one micro-batch, and of one optimizer step."""
    trial, step = case.trial, MicroStep()
    if trial.engine == "blocks":
        count_blocks(trial, case.counts, case.graph, case.kept, step)
    else:
        count_pyg(trial, case.counts, case.graph, step)
    values = FLOAT * parameters(trial, case.graph)
    step.optimizer += [
        Use("operations_optimizer", parameter_tensors_updated(trial)),
        Use("stream", OPTIMIZER_PASSES * values, 4 * values),
    ]
    return step


def parameter_tensors_updated(trial: Trial) -> int:
    """One after the other; a GPU updates all at once."""
    return 5 * trial.layers - 2 if trial.device == "cpu" else 1


def phases_of(case: Case) -> Phases:
    step, rates = micro_step(case), case.rates
    device = case.device_threads
    sampler = 0 if case.kept == "device" else 1  # a batch is sampled by one thread
    gradients = FLOAT * parameters(case.trial, case.graph)
    return Phases(
        sampling_s=rates.seconds(step.sampling, sampler),
        gather_s=rates.seconds(step.gather, 1),
        copy_s=rates.seconds(step.copy, device),
        forward_s=rates.seconds(step.forward, device),
        backward_s=rates.seconds(step.backward, device),
        synchronisation_s=all_reduce_s(gradients, case.trial.ranks, case.network),
        optimizer_s=rates.seconds(step.optimizer, device),
    )


def all_reduce_s(size_bytes: float, ranks: int, network: Network) -> float:
    """A ring's: every rank sends and receives 2 (R - 1) / R of the bytes."""
    if ranks == 1:
        return 0.0
    return network.latency_s + 2 * (ranks - 1) / ranks * size_bytes / network.bytes_per_s
