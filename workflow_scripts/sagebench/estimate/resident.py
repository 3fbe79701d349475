"""What a rank on a card holds beside the step: counted from what the code keeps, bytes by name.

Standard library only.
"""

from __future__ import annotations

from sagebench.estimate.costs import StepCost
from sagebench.estimate.samples import GraphFacts, Sample
from sagebench.grid.trial import Trial
from sagebench.units import GIB, KIB

FLOAT, ID = 4, 8
"""bytes of a value, and of a node's id"""
SAMPLER_NODE_BYTES = 14
"""that a device's sampler keeps of every node of the graph"""
SAMPLER_SCRATCH_NODE_BYTES, SAMPLER_DRAW_BYTES = 20, 36
"""what it takes meanwhile: of a node of the graph, or of a draw"""
DRAWS_A_STEP = 1 << 23  # of sagebench.sampling.tensor, which takes torch to import
BLAS_WORKSPACE_BYTES = 8320 * KIB
"""torch's default of CUBLAS_WORKSPACE_CONFIG, :4096:2:16:8"""
CONTEXT_BYTES = GIB // 2
"""of a card that the CUDA context, its kernels and libraries take, and the allocator never gets"""


def available_bytes(trial: Trial, device_bytes: int | None) -> float | None:
    """What a rank may take of a card of `device_bytes` in all; None: no limit is known."""
    limits: list[float] = []
    if device_bytes is not None:
        limits.append(device_bytes - CONTEXT_BYTES)
    if trial.memory_limit_gib is not None:
        limits.append(trial.memory_limit_gib * GIB)
    return min(limits, default=None)


def placement_of(trial: Trial, graph: GraphFacts, device_bytes: int | None) -> str:
    """`device` or `host` on a card, as sagebench.engines.placement decides it; `mapped` on a CPU.

    device_bytes: of its card in all; None: not known, and taken as enough.
    """
    if trial.engine != "blocks":
        return "host"
    if trial.placement != "auto":
        return trial.placement
    if trial.device == "cpu":
        return "mapped"
    available = available_bytes(trial, device_bytes)
    if available is None:
        return "device"
    reserve = min(4 * GIB, 0.5 * available)
    fits = graph.index_bytes + graph.feature_bytes + reserve <= available
    return "device" if fits else "host"


def resident(trial: Trial, cost: StepCost, graph: GraphFacts) -> dict[str, int]:
    """What stays from before the first step to after the last."""
    weights = FLOAT * cost.parameters
    held = {
        "parameters": 2 * weights,  # the model's and the evaluator's
        "optimizer": 2 * weights,
        "gradient buckets": weights if trial.ranks > 1 else 0,
        "workspace": BLAS_WORKSPACE_BYTES,
        "labels": ID * graph.num_nodes * (2 if trial.engine == "blocks" else 1),
    }
    if cost.placement == "device":
        samplers = trial.sampling_workers + 1
        held["graph and features"] = graph.index_bytes + graph.feature_bytes
        held["samplers"] = SAMPLER_NODE_BYTES * graph.num_nodes * samplers
    return {name: size for name, size in held.items() if size}


def batches_ahead(trial: Trial) -> int:
    """Micro-batches that wait sampled on the device while a step runs, beside its own
    (sagebench.engines.prefetch; PyG's loader keeps its own on the host)."""
    return 2 * trial.sampling_workers if trial.engine == "blocks" else 0


def sampler_bytes(trial: Trial, sample: Sample, graph: GraphFacts, placement: str) -> float:
    """What a device's samplers at work take meanwhile."""
    if placement != "device" or not trial.sampling_workers:
        return 0.0
    nodes = [spread.full_mean for spread in sample.nodes_per_hop]
    draws = max(count * max(k, 0) for count, k in zip(nodes, trial.fanout, strict=False))
    return trial.sampling_workers * max(
        SAMPLER_SCRATCH_NODE_BYTES * graph.num_nodes, SAMPLER_DRAW_BYTES * min(draws, DRAWS_A_STEP)
    )
