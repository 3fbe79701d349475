"""What a rank holds beside the step: counted from what the code keeps, bytes by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sagebench.grid.trial import Trial
from sagebench.predict.samples import GraphFacts
from sagebench.predict.work import parameters

GIB = 1 << 30
FLOAT, ID, LOCAL = 4, 8, 4
"""bytes of a value, of a node's id, and of a node's number in the sample"""

PROCESS_BYTES = {"blocks": 201_800_000, "pyg": 322_100_000}
"""of a CPU rank before it trains: the interpreter, torch, numba, PyG and what they have loaded.
Measured once, of trials with next to no weights, with torch 2.13 on x86-64; outcomes of the same
machine know it better (`process_bytes_of`)"""
PARALLEL_BYTES = 71_000_000
"""the same of what DistributedDataParallel loads; PyG has it in any case"""
CPU_SAMPLER_NODE_BYTES = 5
DEVICE_SAMPLER_NODE_BYTES = 14
DEVICE_SAMPLER_SCRATCH_NODE_BYTES, DEVICE_SAMPLER_DRAW_BYTES = 20, 36
"""what the tensor sampler takes meanwhile: of a node of the graph, or of a draw"""
DRAWS_A_STEP = 1 << 23  # of sagebench.sampling.tensor
PYG_LIB_EDGE_BYTES = 24
"""the edges as int64 pairs, and PyG's own copy of the sources"""
BLAS_WORKSPACE_BYTES = 8320 << 10
"""of a CUDA rank: torch's default of CUBLAS_WORKSPACE_CONFIG, :4096:2:16:8"""
CONTEXT_BYTES = GIB // 2
"""of a card that the CUDA context, its kernels and libraries take, and the allocator never gets"""


def available_bytes(
    trial: Trial, device_bytes: int | None, uncounted_bytes: int = 0
) -> float | None:
    """What a rank may take of `device_bytes`: of a card in all, or its share of a host's memory;
    None: no limit is known. uncounted_bytes: what the trial's own limit does not count."""
    limits: list[float] = []
    if device_bytes is not None:
        limits.append(device_bytes - (CONTEXT_BYTES if trial.device == "cuda" else 0))
    if trial.memory_limit_gib is not None:
        limits.append(trial.memory_limit_gib * GIB + uncounted_bytes)
    return min(limits, default=None)


def placement_of(trial: Trial, graph: GraphFacts, device_bytes: int | None) -> str:
    """`mapped`, `device` or `host`, as sagebench.engines.placement decides it.

    device_bytes: of its card in all; None: not known, and taken as enough.
    """
    if trial.device == "cpu" and trial.engine != "blocks":
        return "host"
    if trial.device == "cpu":
        return "mapped" if trial.placement == "auto" else trial.placement
    if trial.engine != "blocks" or trial.placement != "auto":
        return "host" if trial.engine != "blocks" else trial.placement
    available = available_bytes(trial, device_bytes)
    if available is None:
        return "device"
    reserve = min(4 * GIB, 0.5 * available)
    fits = graph.index_bytes + graph.feature_bytes + reserve <= available
    return "device" if fits else "host"


def resident(
    trial: Trial, graph: GraphFacts, placement: str, process_bytes: int | None
) -> dict[str, int]:
    """What stays from before the first step to after the last. process_bytes: as `peak_memory`."""
    cuda, blocks = trial.device == "cuda", trial.engine == "blocks"
    samplers = trial.sampling_workers + 1
    weights = FLOAT * parameters(trial, graph)
    held = {
        "parameters": 2 * weights,  # the model's and the evaluator's
        "optimizer": 2 * weights,
        "gradient buckets": weights if trial.ranks > 1 else 0,
    }
    if cuda:
        held["workspace"] = BLAS_WORKSPACE_BYTES
        held["labels"] = ID * graph.num_nodes * (2 if blocks else 1)
    else:
        if process_bytes is None:
            process_bytes = PROCESS_BYTES["blocks" if blocks else "pyg"]
            process_bytes += PARALLEL_BYTES if blocks and trial.ranks > 1 else 0
        held["process"] = process_bytes
    if placement == "device":
        if cuda:  # a CPU reads the store where it lies
            held["graph and features"] = graph.index_bytes + graph.feature_bytes
        held["samplers"] = DEVICE_SAMPLER_NODE_BYTES * graph.num_nodes * samplers
    elif not cuda:
        # PyG's samplers are its workers'; this process has used one to warm up.
        held["samplers"] = CPU_SAMPLER_NODE_BYTES * graph.num_nodes * (samplers if blocks else 1)
        if trial.sampler == "pyg_lib":
            held["samplers"] = PYG_LIB_EDGE_BYTES * graph.num_edges
    return {name: size for name, size in held.items() if size}


def process_bytes_of(trial: Trial, graph: GraphFacts, before_bytes: int) -> int:
    """What the process alone took of a CPU rank's `host_private_before_training_bytes`.

    They are read after a step to warm up: all that is resident is there then, but of the samplers
    only the one that was used, the others' pages are not touched yet.
    """
    warm = replace(trial, sampling_workers=0)
    return before_bytes - sum(resident(warm, graph, placement_of(warm, graph, None), 0).values())


def sample_bytes(
    trial: Trial, graph: GraphFacts, placement: str, nodes: Sequence[float], edges: Sequence[float]
) -> float:
    """Of one micro-batch that is sampled and loaded, where the step runs. nodes, edges: per hop.

    A CPU's PyG workers hand theirs over in shared memory, which is no process's own.
    """
    every, all_edges = sum(nodes), sum(edges)
    rows = every - nodes[-1]
    if trial.engine != "blocks":
        if trial.device == "cpu" and trial.sampling_workers:
            return 0.0
        return every * (FLOAT * graph.num_features + 2 * ID) + all_edges * 2 * ID
    if placement == "host":
        features = FLOAT * graph.num_features * every
        return features + ID * every + ID * rows + LOCAL * all_edges
    index = graph_index_bytes(graph)
    return 2 * ID * rows + index * all_edges + LOCAL * (all_edges - edges[-1])


def graph_index_bytes(graph: GraphFacts) -> int:
    """Of one neighbor in the store."""
    return 4 if graph.num_nodes < 2**31 else 8


def batches_ahead(trial: Trial) -> int:
    """Micro-batches that wait sampled while a step runs, beside its own
    (sagebench.engines.prefetch; PyG's loader keeps its own on the host)."""
    return 2 * trial.sampling_workers if trial.engine == "blocks" else 0


def sampling_bytes(trial: Trial, graph: GraphFacts, placement: str, nodes, edges) -> float:
    """What the samplers at work take meanwhile, where the step runs."""
    if trial.engine != "blocks" or trial.sampling_workers == 0:
        return 0.0
    if placement != "device":
        at_work = sample_bytes(trial, graph, placement, nodes, edges)
        return trial.sampling_workers * at_work if trial.device == "cpu" else 0.0
    draws = max(
        frontier * (k if k > 0 else 0) for frontier, k in zip(nodes, trial.fanout, strict=False)
    )
    return trial.sampling_workers * max(
        DEVICE_SAMPLER_SCRATCH_NODE_BYTES * graph.num_nodes,
        DEVICE_SAMPLER_DRAW_BYTES * min(draws, DRAWS_A_STEP),
    )
