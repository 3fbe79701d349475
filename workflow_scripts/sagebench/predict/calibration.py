"""Measures a device's rates, one process a job; `workflow_scripts/calibrate.py` starts them.

    python -m sagebench.predict.calibration '{"job": "kernels", "device": "cpu", ...}'

The last line of the standard output is the result. Every rate is the median over repetitions of
what the engines themselves call, at the layers' width; the kinds are those of `work.py`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sagebench.model.fused import norm_relu_dropout
from sagebench.model.linear import sage_linear
from sagebench.model.segment import segment_aggregate
from sagebench.predict.calibration_steps import Stopwatch, calls
from sagebench.sampling.cpu import CpuSampler
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.trainer import synchronise_device

WIDTH, DEGREE = 256, 4
ROWS = {"cpu": (1_000, 20_000), "cuda": (10_000, 400_000)}
"""a layer that a CPU's caches hold, and one that they do not"""
NODES, NEIGHBORS = (1 << 13, 1 << 20), 16
"""of the sampler's graphs: as above"""
SAMPLER_FANOUT, SCANS = 10, 5
MESSAGE_BYTES = 1 << 22
Measurement = tuple[str, float, float, Callable[[], Any]]
"""kind, amount, bytes touched, and what does it once"""


def kernels(job: dict[str, Any]) -> dict[str, Any]:
    """The curve of every kind of kernel on `device` with `threads` threads."""
    device = torch.device(job["device"])
    torch.set_num_threads(job["threads"])
    stopwatch = Stopwatch(device, job["slice_s"])
    curves: dict[str, list[tuple[float, float]]] = {}
    for rows in ROWS[device.type]:
        for kind, amount, touched, work in _kernels(device, rows):
            curves.setdefault(kind, []).append((touched, amount / stopwatch(work)))
    return {"curves": curves}


def _kernels(device: torch.device, rows: int) -> Iterator[Measurement]:
    generator = torch.Generator(device).manual_seed(0)
    edges, row = DEGREE * rows, 4 * WIDTH
    x = torch.rand(rows, WIDTH, device=device, generator=generator)
    y = torch.rand(rows, WIDTH, device=device, generator=generator)
    messages = x.repeat(DEGREE, 1)
    source = torch.randint(rows, (edges,), device=device, generator=generator)
    rowptr = torch.arange(0, edges + 1, DEGREE, device=device)
    target = (torch.arange(edges, device=device) // DEGREE)[:, None].expand(-1, WIDTH)
    weight, bias = y[:WIDTH].contiguous(), x[0].clone()
    sums = torch.zeros_like(x)
    matrix = rows * row
    yield "stream", 3 * matrix, 3 * matrix, lambda: torch.add(x, y)
    yield "norm", 2 * matrix, 2 * matrix, lambda: F.layer_norm(x, (WIDTH,), bias, bias)
    yield "gather", 2 * edges * row, matrix, lambda: x.index_select(0, source)
    yield "spread", (edges + rows) * row, matrix, lambda: x.gather(0, target)
    yield (
        *("scatter", (edges + 2 * rows) * row, matrix),
        lambda: sums.scatter_add_(0, target, messages),
    )
    yield "scatter_random", 3 * edges * row, matrix, lambda: sums.index_add_(0, source, messages)
    yield (
        *("segment", (edges + rows) * row, matrix),
        lambda: segment_aggregate(x, rowptr, source, "mean"),
    )
    yield from _products(device, x, y, weight)
    if device.type == "cuda":
        pinned = torch.empty(rows, WIDTH, pin_memory=True)
        yield "copy", matrix, matrix, lambda: pinned.to(device, non_blocking=True)
        return
    yield from _cpu_kernels(x, y, weight, bias, rowptr, source)


def _products(device: torch.device, x: Tensor, y: Tensor, weight: Tensor) -> Iterator[Measurement]:
    """A layer's product and a weight's gradient, in every precision that the device has."""
    flops, touched = 4 * len(x) * WIDTH**2, len(x) * 4 * 2 * WIDTH + 4 * WIDTH**2
    on_gpu = device.type == "cuda"
    modern = not on_gpu or torch.cuda.get_device_capability(device) >= (8, 0)
    for precision in ("fp32", *(("tf32",) if on_gpu else ()), "bf16")[: 3 if modern else 1]:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b, w = x.to(dtype), y.to(dtype), weight.to(dtype)
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        bytes_touched = touched * a.element_size() / 4
        yield (
            *(f"products_{precision}", flops, bytes_touched),
            lambda a=a, b=b, w=w: (F.linear(a, w), a.t() @ b),
        )
        torch.backends.cuda.matmul.allow_tf32 = False


def _cpu_kernels(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, rowptr: Tensor, source: Tensor
) -> Iterator[Measurement]:
    """What only a CPU does: our own kernels there, and torch's random numbers."""
    rows, values = len(x), x.numel()
    needing = x.clone().requires_grad_()
    out = norm_relu_dropout(needing, bias, bias, 0.5, 1, True)
    touched = 2 * rows * 4 * 2 * WIDTH
    with torch.no_grad():
        yield (
            *("layer_products_fp32", 4 * rows * WIDTH**2, touched),
            lambda: sage_linear(x, y, weight, bias, weight),
        )
    yield (
        *("activation", values, 8 * values),
        lambda: norm_relu_dropout(needing, bias, bias, 0.5, 1, True),
    )
    yield (
        *("activation_backward", values, 12 * values),
        lambda: torch.autograd.grad(out, needing, y, retain_graph=True),
    )
    yield "dropout", values, 12 * values, lambda: F.dropout(x, 0.5, True)
    col, ends = source.int().numpy(), rowptr.int().numpy()

    def regroup() -> None:
        try:
            from sagebench.model.cpu_kernels import transpose
        except ImportError:  # without numba
            torch.sort(source, stable=True)
        else:
            transpose(ends, col, np.zeros(rows + 2, np.int32), np.empty_like(col))

    yield "regroup", len(col), 4.0 * len(col), regroup


def sampler(job: dict[str, Any]) -> dict[str, Any]:
    """The CPU sampler on one thread: edges sampled and relabelled, and nodes looked through."""
    stopwatch = Stopwatch(torch.device("cpu"), job["slice_s"])
    random = np.random.default_rng(0)
    curves: dict[str, list[tuple[float, float]]] = {}
    for nodes in NODES:
        colptr = np.arange(0, nodes * NEIGHBORS + 1, NEIGHBORS)
        row = random.integers(0, nodes, nodes * NEIGHBORS, dtype=np.int32)
        sampler = CpuSampler(colptr, row)
        seeds = random.permutation(nodes)[: nodes // 8]
        scan_s = stopwatch(lambda s=sampler: s.sample(np.zeros(1, np.int64), (0,) * SCANS, 1))
        scan_s /= 1 + 2 * SCANS  # once through the states of all nodes
        edges = len(seeds) * SAMPLER_FANOUT
        sampled_s, both_s = (
            stopwatch(
                lambda s=sampler, i=seeds, r=relabel: s.sample(
                    i, (SAMPLER_FANOUT,), 1, relabel_last=r
                )
            )
            for relabel in (False, True)
        )
        index_bytes = colptr.nbytes + row.nbytes
        curves.setdefault("scanned_nodes", []).append((nodes, nodes / scan_s))
        for kind, seconds in (
            ("sampled_edges", sampled_s - scan_s),
            ("relabelled_edges", both_s - sampled_s - 2 * scan_s),
        ):
            # On a noisy machine a difference may come out as nothing.
            curves.setdefault(kind, []).append((index_bytes, edges / max(seconds, sampled_s / 20)))
    return {"curves": curves}


def all_reduce(job: dict[str, Any]) -> dict[str, Any]:
    """Between the ranks of RankEnvironment: latency, and bytes a second on top of it."""
    place = RankEnvironment.read()
    device = torch.device(job["device"], place.local_rank if job["device"] == "cuda" else None)
    communicator = Communicator(place, device)

    def median_s(size_bytes: int) -> float:
        values = torch.zeros(size_bytes // 4, device=device)
        times = []
        for _ in range(job["repetitions"]):
            communicator.barrier()
            synchronise_device(device)
            start = time.perf_counter()
            communicator.sum(values)
            synchronise_device(device)
            times.append(time.perf_counter() - start)
        return median(times)

    median_s(MESSAGE_BYTES)
    latency_s = median_s(4)
    transfer_s = max(median_s(MESSAGE_BYTES) - latency_s, latency_s / 10)
    ranks = place.world_size
    communicator.close()
    sent = 2 * (ranks - 1) / ranks * MESSAGE_BYTES
    return {"latency_s": latency_s, "bytes_per_s": sent / transfer_s}


def machine(job: dict[str, Any]) -> dict[str, Any]:
    """On what all of this was measured."""
    from sagebench.measure import machine

    return {
        **machine.collect_cpu(),
        **machine.collect_device(torch.device(job["device"])),
        "versions": machine.collect_versions(),
    }


def host(job: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the number of threads: `calls`, `sampler` and `machine`."""
    found = calls(job)
    found["curves"] |= sampler(job)["curves"]
    return {**found, "machine": machine(job)}


JOBS = {job.__name__: job for job in (kernels, host, all_reduce)}


def main() -> None:
    job = json.loads(sys.argv[1])
    result = JOBS[job["job"]](job)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
