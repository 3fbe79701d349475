"""Candidate kernels beside the plain path, at the sizes of a step on ogbn-products.

    python tests/gpu/bench_candidates.py --out FILE [--budget-s 75] [--only norm step ...]
    TRITON_INTERPRET=1 python tests/gpu/bench_candidates.py --device cpu --scale 0.002

Needs torch, triton, numpy and numba. Each line of FILE is one measurement (JSON), written as it
comes; what is printed at the end is one object of them all. A measurement that fails is a line
with `failed`; what does not fit into the budget is listed as `left_out`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "workflow_scripts")]

import torch  # noqa: E402
import triton  # noqa: E402

if os.environ.get("TRITON_INTERPRET") == "1":
    import interpreter  # noqa: F401  (mends it)

import torch.nn.functional as F  # noqa: E402
from candidates import norm, samples, segment, transpose  # noqa: E402
from candidates.gradient_norm import gradient_norm  # noqa: E402
from candidates.sampler import KernelSampler  # noqa: E402
from candidates.step import KernelModel, Tuning  # noqa: E402
from sagebench.kernels import segment as plain_segment  # noqa: E402
from sagebench.kernels.fused import keep_mask, plain_norm_relu_dropout  # noqa: E402
from sagebench.models.base import Network  # noqa: E402
from sagebench.sampling.device.uniform import Sampler as TensorSampler  # noqa: E402
from torch import Tensor  # noqa: E402

WARM_UPS, REPETITIONS = 3, 9
P, KEY, HIDDEN, COLUMNS, CLASSES = 0.5, 0x8234567812345678, 256, 100, 47


class Bench:
    """Times and checks, and keeps what came out."""

    def __init__(self, device: torch.device, scale: float, budget_s: float, out: str | None):
        self.device = device
        self.scale = scale
        self.start = time.perf_counter()
        self.budget_s = budget_s
        self.once = device.type == "cpu"
        self.rows: list[dict] = []
        self.file = Path(out).open("w") if out else None  # noqa: SIM115
        self.best: dict[str, tuple[float, dict]] = {}

    def add(self, **row) -> None:
        row["at_s"] = round(time.perf_counter() - self.start, 1)
        self.rows.append(row)
        for stream in (self.file, sys.stderr):
            if stream:
                print(json.dumps(row), file=stream, flush=True)

    @property
    def over(self) -> bool:
        return time.perf_counter() - self.start > self.budget_s

    def section(self, name: str, function: Callable[[], None]) -> None:
        if self.over:
            self.add(name=name, left_out=True)
            return
        try:
            function()
        except Exception as error:
            self.failed(name, error)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def failed(self, name: str, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        self.add(name=name, failed=f"{type(error).__name__}: {error}"[:600], line=str(last)[-160:])

    def options(self, kind: str) -> dict:
        """Of the fastest of that kind so far."""
        return self.best.get(kind, (0.0, {}))[1]

    def measure(
        self,
        name: str,
        function: Callable[[], object],
        *,
        moved: float = 0,
        check: Callable[[object], dict] | None = None,
        kind: str | None = None,
        options: dict | None = None,
        queued: bool = True,
        repetitions: int = REPETITIONS,
    ) -> None:
        """Time `function` and check what its first call gives. moved: bytes that it has to move.
        kind, options: of the kind's measurements, the fastest gives its options to the step.
        queued: let the host run ahead, so that launches are not counted."""
        if self.over:
            self.add(name=name, left_out=True)
            return
        try:
            begun = time.perf_counter()
            result = function()
            self.wait()
            first_s = time.perf_counter() - begun
            errors = check(result) if check else {}
            del result
            ms = 1e3 * first_s if self.once else self.median_ms(function, queued, repetitions)
            row = {"name": name, "ms": round(ms, 4), "first_s": round(first_s, 2), **errors}
            if moved:
                row["gb_s"] = round(moved / ms / 1e6)
            self.add(**row)
            right = all(value < 2e-2 for value in errors.values())
            if kind and right and ms < self.best.get(kind, (float("inf"), {}))[0]:
                self.best[kind] = (ms, options or {})
        except Exception as error:
            self.failed(name, error)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def median_ms(self, function: Callable[[], object], queued: bool, repetitions: int) -> float:
        for _ in range(WARM_UPS):
            function()
        events = [
            [torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repetitions)
        ]
        self.wait()
        if queued:
            torch.cuda._sleep(5_000_000)  # some 3 ms
        for before, after in events:
            before.record()
            function()
            after.record()
        self.wait()
        return statistics.median(before.elapsed_time(after) for before, after in events)


def relative(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach().float(), expected.detach().float()
    return float(f"{((got - expected).norm() / expected.norm().clamp(min=1e-20)).item():.3g}")


def launch_options(*names: str, rows_of: list[tuple]) -> list[dict]:
    return [dict(zip(names, values, strict=True)) for values in rows_of]


def bench_bandwidth(bench: Bench) -> None:
    x = torch.empty(samples.scaled(1 << 28, bench.scale), device=bench.device)
    y = torch.empty_like(x)
    bench.measure("copy", lambda: y.copy_(x), moved=2 * x.nbytes)


def bench_norm(bench: Bench, variants: list[tuple], dtype: torch.dtype = torch.bfloat16) -> None:
    n = samples.scaled(541_676, bench.scale)
    generator = torch.Generator(bench.device).manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=bench.device)

    x, upstream = normal(n, HIDDEN).to(dtype), normal(n, HIDDEN).to(dtype)
    gamma, beta = 1 + 0.1 * normal(HIDDEN), 0.1 * normal(HIDDEN)
    ids = torch.randperm(samples.NODES, generator=generator, device=bench.device)[:n]
    mask = (P, KEY, ids)
    name = str(dtype).removeprefix("torch.")
    exact = [t.detach().float().requires_grad_() for t in (x, gamma, beta)]
    expected = plain_norm_relu_dropout(*exact, P, KEY, ids, 1e-5)
    of_x, of_gamma, of_beta = torch.autograd.grad(expected, exact, upstream.float())
    expected = expected.detach()
    out, mean, rstd = norm.forward(x, gamma, beta, *mask)
    dropped = (keep_mask(KEY, ids, HIDDEN, P) == 0) & (out != 0)
    bench.add(name=f"norm {name} values kept that the mask drops", count=int(dropped.sum()))
    del dropped, exact, out
    for options in launch_options("rows", "warps", rows_of=variants):
        bench.measure(
            f"norm {name} forward {options}",
            lambda o=options: norm.forward(x, gamma, beta, *mask, **o),
            moved=2 * x.nbytes,
            check=lambda got: {"error": relative(got[0], expected)},
            kind=f"norm_forward {name}",
            options=options,
        )
    work = upstream.clone()
    for options in launch_options("rows", "warps", rows_of=variants):

        def check(got):
            return {
                "error": relative(got[0], of_x),
                "gamma": relative(got[1][0], of_gamma),
                "beta": relative(got[1][1], of_beta),
                "bias": relative(got[1][2], got[0].sum(0, dtype=torch.float32)),
            }

        work.copy_(upstream)
        bench.measure(
            f"norm {name} backward {options}",
            lambda o=options: norm.backward(x, gamma, beta, *mask, mean, rstd, work, **o),
            moved=3 * x.nbytes,
            check=check,
            kind=f"norm_backward {name}",
            options=options,
        )
    if dtype == torch.bfloat16:
        bench.measure(
            "norm bf16 forward plain",
            lambda: plain_norm_relu_dropout(x, gamma, beta, P, KEY, ids, 1e-5),
            moved=2 * x.nbytes,
            repetitions=3,
        )


def bench_first_layer(bench: Bench, sample, table: Tensor, variants: dict[str, list]) -> None:
    """Layer 1: the global table's rows, mean, with the roots beside."""
    n, edges = sample.destinations(1), sample.edges(1)
    rowptr, col, ids = sample.rowptr, sample.neighbors, sample.node_ids
    width = segment.width_of(COLUMNS)
    half = table.bfloat16()
    expected = plain_segment.segment_aggregate(half.float(), rowptr, col, "mean")
    roots = half[ids]
    tables = {"bf16 of 100": half, "bf16 of 104": F.pad(half, (0, 4)), "fp32": table}
    if any("128" in name for name in variants):
        tables["bf16 of 128"] = F.pad(half, (0, 28))

    def check(got):
        return {
            "error": relative(got[:, :COLUMNS], expected),
            "root": relative(got[:, width:][:, :COLUMNS], roots),
        }

    for name, of_table in variants.items():
        x = tables[name]
        moved = (edges + n) * COLUMNS * x.element_size() + n * 2 * width * 2 + 4 * edges
        names = ("rows", "unroll", "tile", "warps")
        for options in launch_options(*names, rows_of=of_table):
            bench.measure(
                f"layer 1 mean and root, {name} {options}",
                lambda x=x, o=options: segment.aggregate(
                    x, rowptr, col, ids=ids, columns=COLUMNS, dtype=torch.bfloat16, **o
                ),
                moved=moved,
                check=check,
                kind=f"first {name}",
                options=options,
            )
    bench.measure(
        "layer 1 mean plain, fp32",
        lambda: plain_segment.segment_aggregate(table, rowptr, col, "mean"),
        moved=edges * COLUMNS * 4 + n * COLUMNS * 4,
        repetitions=5,
    )


def bench_other_layers(bench: Bench, sample, variants: list, backward: list) -> None:
    """Layer 2: mean and root of 256 columns, and its gradient over the edges by source."""
    n, sources, edges = sample.destinations(2), sample.sources(2), sample.edges(2)
    generator = torch.Generator(bench.device).manual_seed(2)
    h = torch.randn(sources, HIDDEN, generator=generator, device=bench.device).bfloat16()
    rowptr, col = sample.rowptr[: n + 1], sample.cols[:edges]
    upstream = torch.randn(n, 2 * HIDDEN, generator=generator, device=bench.device).bfloat16()
    exact = h.float().requires_grad_()
    expected, root = plain_segment.aggregate_with_root(exact, rowptr, col, "mean")
    halves = [upstream[:, :HIDDEN].float(), upstream[:, HIDDEN:].float()]
    (of_h,) = torch.autograd.grad([expected, root], exact, halves)
    expected = expected.detach()
    moved = (edges + 3 * n) * HIDDEN * 2 + 4 * edges
    names = ("rows", "unroll", "tile", "warps")
    for options in launch_options(*names, rows_of=variants):
        bench.measure(
            f"layer 2 mean and root, bf16 {options}",
            lambda o=options: segment.aggregate(h, rowptr, col, **o),
            moved=moved,
            check=lambda got: {
                "error": relative(got[:, :HIDDEN], expected),
                "root": relative(got[:, HIDDEN:], h[:n]),
            },
            kind="others",
            options=options,
        )
    owner = samples.owners(sample, edges)
    colptr, dst = transpose.by_sort(col, owner, sources)
    weights = rowptr.diff().float().reciprocal_()
    bench.add(name="layer 2, most edges of a source", count=int(colptr.diff().max()))
    moved = (edges + sources + n) * HIDDEN * 2 + 8 * edges
    names = ("rows", "unroll", "tile", "warps", "hubs", "split")
    for options in launch_options(*names, rows_of=backward):
        bench.measure(
            f"layer 2 gradient, bf16 {options}",
            lambda o=options: segment.gradient(upstream, colptr, dst, HIDDEN, n, weights, **o),
            moved=moved,
            check=lambda got: {"error": relative(got, of_h)},
            kind="gradient",
            options=options,
        )
    bench.measure(
        "layer 2 mean plain, bf16",
        lambda: plain_segment.segment_aggregate(h, rowptr, col, "mean"),
        moved=(edges + n) * HIDDEN * 2,
        repetitions=5,
    )
    values = weights.bfloat16()[owner.long()]
    matrix = torch.sparse_csr_tensor(rowptr.int(), col, values, (n, sources))
    bench.measure(
        "layer 2 mean cuSPARSE, bf16",
        lambda: matrix @ h,
        moved=(edges + n) * HIDDEN * 2,
        check=lambda got: {"error": relative(got, expected)},
        repetitions=5,
    )


def bench_gradient_norm(bench: Bench, sample, variants: list) -> None:
    """Layer 2's gradient and the backward pass of the norm before it, in one kernel."""
    n, sources, edges = sample.destinations(2), sample.sources(2), sample.edges(2)
    generator = torch.Generator(bench.device).manual_seed(6)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=bench.device)

    x, upstream = normal(sources, HIDDEN).bfloat16(), normal(n, 2 * HIDDEN).bfloat16()
    gamma, beta = 1 + 0.1 * normal(HIDDEN), 0.1 * normal(HIDDEN)
    rowptr, col = sample.rowptr[: n + 1], sample.cols[:edges]
    colptr, dst = transpose.by_sort(col, samples.owners(sample, edges), sources)
    weights = rowptr.diff().float().reciprocal_()
    mask = (P, KEY, sample.node_ids)
    _, mean, rstd = norm.forward(x, gamma, beta, *mask)

    def apart() -> tuple[Tensor, Tensor]:
        of_h = segment.gradient(
            upstream, colptr, dst, HIDDEN, n, weights, **bench.options("gradient")
        )
        options = bench.options("norm_backward bfloat16")
        return norm.backward(x, gamma, beta, *mask, mean, rstd, of_h, **options)

    expected = apart()
    moved = (edges + 2 * sources + n) * HIDDEN * 2 + 8 * edges
    bench.measure("layer 2 gradient, then norm's backward", apart, moved=moved, kind="apart")
    for options in launch_options(
        "rows", "unroll", "warps", "rows_a_program", "registers", rows_of=variants
    ):
        bench.measure(
            f"layer 2 gradient with norm's backward {options}",
            lambda o=options: gradient_norm(
                upstream, colptr, dst, n, weights, x, gamma, beta, *mask, mean, rstd, **o
            ),
            moved=moved,
            check=lambda got: {
                "error": relative(got[0], expected[0]),
                "sums": relative(got[1], expected[1]),
            },
            kind="fused",
            options=options,
        )


def bench_transposed(bench: Bench, sample) -> None:
    edges, sources = sample.edges(2), sample.sources(2)
    rowptr, col = sample.rowptr[: sample.destinations(2) + 1], sample.cols[:edges]
    owner = samples.owners(sample, edges)
    colptr, dst = plain_segment._by_source(rowptr, col, sources)

    def check(got):
        return {"unlike": float((got[0] != colptr).sum() + (got[1] != dst).sum())}

    for name, function in (("sort", transpose.by_sort), ("count", transpose.by_count)):
        bench.measure(
            f"edges by source, {name}",
            lambda f=function: f(col, owner, sources),
            check=check,
            kind="transpose",
            options={"name": name},
        )
    bench.measure(
        "edges by source, plain",
        lambda: plain_segment._by_source(rowptr, col, sources),
        queued=False,
    )
    bench.measure("sort of the edges' sources alone", lambda: torch.sort(col, stable=True))


def bench_sampler(bench: Bench, variants: list) -> None:
    import numpy as np

    colptr, row = samples.random_graph(bench.device, bench.scale, 3)
    plain = TensorSampler(colptr, row)
    seeds = [
        np.random.default_rng(i).choice(len(colptr) - 1, samples.scaled(128, bench.scale), False)
        for i in range(4)
    ]
    fanout = list(samples.FANOUT)
    expected = plain.sample(seeds[0], fanout, KEY, relabel_last=False)
    bench.add(name="sample", nodes=expected.nodes_per_hop, edges=expected.edges_per_hop)

    def unlike(got) -> float:
        blocks = got[0] if isinstance(got[0], tuple) else got
        wrong = float(blocks.nodes_per_hop != expected.nodes_per_hop)
        wrong += float(blocks.edges_per_hop != expected.edges_per_hop)
        for a, b in zip(blocks[:4], expected[:4], strict=True):
            wrong += len(a) != len(b) or float((a != b).sum())
        return {"unlike": wrong}

    for options in launch_options("rows", "warps", rows_of=variants):
        kernels = KernelSampler(colptr, row, **options)
        bench.measure(
            f"sampler, kernels {options}",
            lambda k=kernels: k.sample_with_owners(seeds[0], fanout, KEY, relabel_last=False),
            check=unlike,
            queued=False,
        )
        bench.add(name=f"sampler waits {options}", count=kernels.waits)
    turn = iter(range(1 << 30))
    kernels = KernelSampler(colptr, row, **launch_options("rows", "warps", rows_of=variants)[0])
    bench.measure(
        "sampler, kernels, seeds in turn, and edges by source",
        lambda: whole_sample(kernels, seeds[next(turn) % 4], fanout),
        queued=False,
    )
    bench.measure(
        "sampler, plain",
        lambda: plain.sample(seeds[0], fanout, KEY, relabel_last=False),
        queued=False,
        repetitions=5,
    )
    if not bench.once:
        bench.add(name="sampler launches, kernels", **launches(lambda: whole_sample(
            kernels, seeds[0], fanout)))  # fmt: skip
    expand_alone(bench, kernels, expected)


def whole_sample(sampler: KernelSampler, seeds, fanout):
    blocks, owner = sampler.sample_with_owners(seeds, fanout, KEY, relabel_last=False)
    return blocks, transpose.by_sort(blocks.cols, owner, blocks.sources(2))


def expand_alone(bench: Bench, sampler: KernelSampler, sample) -> None:
    """The last hop's kernel by itself."""
    from candidates.sampler import _expand_kernel
    from sagebench.sampling.random import signed

    first, last = sample.destinations(2), sample.destinations(1)
    frontier = sample.node_ids[first:last].clone()
    taken = sample.rowptr.diff()[first:last].int()
    ends = taken.cumsum(0)
    found = sampler.row.new_empty(int(ends[-1]))
    owner = torch.empty_like(found, dtype=torch.int32)
    sizes = torch.tensor([0, len(frontier)], device=bench.device)
    for mark in (False, True):
        for rows, warps in ((128, 4), (32, 1)):
            bench.measure(
                f"sampler, last hop's kernel, {rows=} {warps=} {mark=}",
                lambda m=mark, r=rows, w=warps: _expand_kernel[(triton.cdiv(len(frontier), r),)](
                    frontier, sampler.colptr, sampler.row, taken, ends, found, owner,
                    sampler._state, sizes, signed(KEY),
                    K=10, COLUMNS=16, MARK=m, ROWS=r, num_warps=w,
                ),
                moved=len(found) * 36 + len(frontier) * 28,
            )  # fmt: skip


def bench_products(bench: Bench) -> None:
    """The products of the first layer, K = 208 beside 256, and both weight gradients."""
    n = samples.scaled(541_676, bench.scale)
    up = torch.randn(n, HIDDEN, device=bench.device).bfloat16()
    bias = torch.randn(HIDDEN, device=bench.device).bfloat16()
    for k in (208, 256, 512):
        both = torch.randn(n, k, device=bench.device).bfloat16()
        weight = torch.randn(HIDDEN, k, device=bench.device).bfloat16()
        bench.measure(
            f"product forward, K = {k}",
            lambda b=both, w=weight: torch.addmm(bias, b, w.t()),
            moved=both.nbytes + up.nbytes,
        )
        bench.measure(
            f"product of the weights' gradient, K = {k}",
            lambda b=both: up.t() @ b,
            moved=both.nbytes + up.nbytes,
        )
    weight = torch.randn(HIDDEN, 2 * HIDDEN, device=bench.device).bfloat16()
    part = up[: samples.scaled(114_782, bench.scale)]
    bench.measure(
        "product of the inputs' gradient, layer 2", lambda: part @ weight, moved=3 * part.nbytes
    )


class Steps:
    """One step of the model as it is, and of the candidate, on one sample."""

    def __init__(self, bench: Bench, sample, table: Tensor) -> None:
        torch.manual_seed(0)
        device = bench.device
        self.bench, self.sample, self.table = bench, sample, table
        self.model = graphsage(torch.bfloat16).to(device)
        self.labels = torch.randint(0, CLASSES, (sample.num_seeds,), device=device)
        edges = sample.edges(2)
        self.col, self.owner = sample.cols[:edges], samples.owners(sample, edges)
        self.by_source = transpose.by_sort(self.col, self.owner, sample.sources(2))

    def loss(self, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), self.labels, reduction="sum") / len(self.labels)

    def plain(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        self.model.zero_grad(set_to_none=True)
        for conv in self.model.convs:
            conv.dtype = dtype
        logits = self.model(self.table, self.sample)
        self.loss(logits).backward()
        return logits

    def candidate(self, kernels: KernelModel, table: Tensor, regroup: bool = False) -> Tensor:
        self.model.zero_grad(set_to_none=True)
        by_source = self.by_source
        if regroup:
            by_source = transpose.by_sort(self.col, self.owner, self.sample.sources(2))
        logits = kernels(table, self.sample, by_source)
        self.loss(logits).backward()
        return logits

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad.clone() for name, p in self.model.named_parameters()}


def compare(steps: Steps, kernels: KernelModel, table: Tensor) -> dict:
    """Errors of the candidate and of the plain path in bf16, both against the plain in fp32, over
    all gradients as one vector, and the worst of a parameter."""
    exact = steps.plain(torch.float32).detach(), steps.gradients()
    plain = steps.plain().detach(), steps.gradients()
    got = steps.candidate(kernels, table).detach(), steps.gradients()
    again = steps.candidate(kernels, table).detach(), steps.gradients()
    told = {"same_to_the_bit": all(torch.equal(a, again[1][n]) for n, a in got[1].items())}
    for name, result in (("candidate", got), ("plain", plain)):
        told[f"{name}_logits_error"] = relative(result[0], exact[0])
        a, b = (torch.cat([g.flatten() for g in r[1].values()]) for r in (result, exact))
        told[f"{name}_gradient_error"] = relative(a, b)
        worst = max((relative(g, exact[1][n]), n) for n, g in result[1].items())
        told[f"{name}_worst"] = f"{worst[0]} ({worst[1]})"
    told["candidate_plain_logits"] = relative(got[0], plain[0])
    return told


def bench_step(bench: Bench, sample, table: Tensor, label: str, tuning: Tuning) -> None:
    steps = Steps(bench, sample, table)
    half = F.pad(table.bfloat16(), (0, 4))
    kernels = KernelModel(steps.model, tuning)
    bench.add(name=f"step {label}, compared", **compare(steps, kernels, half))
    if label == "best":
        label = f"{label}, fused" if tuning.fused is not None else label
    ways = {
        f"step {label}, candidate": lambda: steps.candidate(kernels, half),
        f"step {label}, candidate with edges by source": lambda: steps.candidate(
            kernels, half, True
        ),
        f"step {label}, candidate, fp32 table": lambda: steps.candidate(kernels, table),
    }
    for name, way in ways.items():
        bench.measure(name, way, queued=False, repetitions=15)
    if label == "default":
        bench.measure("step, plain", steps.plain, queued=False)
    if bench.once:
        return
    for name, way in list(ways.items())[:2]:
        try:
            graph = captured(way)
            bench.measure(f"{name}, CUDA graph", graph.replay, queued=False, repetitions=15)
        except Exception as error:
            bench.failed(f"{name}, CUDA graph", error)
    bench.add(name=f"step {label}, candidate's launches", **launches(next(iter(ways.values()))))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    steps.candidate(kernels, half)
    peak = torch.cuda.max_memory_allocated() - before
    bench.add(name=f"step {label}, candidate's peak above its inputs", gb=round(peak / 1e9, 3))
    if label == "default":
        bench.add(name="step, plain's launches", **launches(steps.plain))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        steps.plain()
        peak = torch.cuda.max_memory_allocated() - before
        bench.add(name="step, plain's peak above its inputs", gb=round(peak / 1e9, 3))


def graphsage(dtype: torch.dtype) -> Network:
    widths = [COLUMNS, *[HIDDEN] * (len(samples.FANOUT) - 1), CLASSES]
    return Network("sage", widths, dropout=P, options={"aggregator": "mean"}, dtype=dtype)


def bench_optimizer(bench: Bench) -> None:
    model = graphsage(torch.float32).to(bench.device)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    plain = torch.optim.Adam(model.parameters(), lr=1e-3)
    bench.measure("optimizer, plain", plain.step, queued=False)
    if bench.device.type == "cuda":
        fused = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        bench.measure("optimizer, fused", fused.step, queued=False)


def bench_training(bench: Bench, table: Tensor, tuning: Tuning) -> None:
    """Whole steps over different seeds: sample, edges by source, forward, backward, optimizer."""
    import numpy as np

    device = bench.device
    colptr, row = samples.random_graph(device, bench.scale, 3)
    half = F.pad(table.bfloat16(), (0, 4))
    sampler, fanout = KernelSampler(colptr, row), list(samples.FANOUT)
    batch, nodes = samples.scaled(128, bench.scale), len(colptr) - 1
    warm, steps = (1, 1) if bench.once else (8, 40)
    rng = np.random.default_rng(5)
    seeds = [rng.choice(nodes, batch, False) for _ in range(warm + steps)]
    labels = torch.randint(0, CLASSES, (nodes,), device=device)
    model = graphsage(torch.bfloat16).to(device)
    kernels = KernelModel(model, tuning)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=device.type == "cuda")

    def sample(i: int):
        blocks, by_source = whole_sample(sampler, seeds[i], fanout)
        return blocks, by_source, labels[blocks.node_ids[:batch]]

    def step(blocks, by_source, of_seeds) -> None:
        loss = F.cross_entropy(kernels(half, blocks, by_source).float(), of_seeds)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def beside(i: int):
        with torch.cuda.stream(stream):
            result = sample(i)
            return result, stream.record_event()

    begun = 0.0
    for i in range(warm + steps):
        if i == warm:
            bench.wait()
            begun = time.perf_counter()
        step(*sample(i))
    bench.wait()
    ms = 1e3 * (time.perf_counter() - begun) / steps
    bench.add(name="training, ms a step, one after the other", ms=round(ms, 3))
    if device.type != "cuda":
        return
    stream = torch.cuda.Stream(device, priority=-1)
    kept = []  # else the allocator could give memory away that the other stream still reads
    with ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(0,)) as pool:
        coming = pool.submit(beside, 0)
        for i in range(warm + steps):
            if i == warm:
                bench.wait()
                begun = time.perf_counter()
            result, ready = coming.result()
            if i + 1 < warm + steps:
                coming = pool.submit(beside, i + 1)
            torch.cuda.current_stream().wait_event(ready)
            step(*result)
            kept.append(result)
    bench.wait()
    ms = 1e3 * (time.perf_counter() - begun) / steps
    bench.add(name="training, ms a step, sampler in a thread and stream", ms=round(ms, 3))


def captured(function: Callable[[], object]) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph


def launches(function: Callable[[], object]) -> dict:
    """How many kernels and copies a call launches, and the longest, in microseconds."""
    from torch.profiler import ProfilerActivity, profile

    function()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        function()
        torch.cuda.synchronize()
    found = [e for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    by_name: dict[str, list[float]] = {}
    for event in found:
        by_name.setdefault(event.name[:60], []).append(event.time_range.elapsed_us())
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:14]
    waits = sum("Synchronize" in e.name for e in seen.events()) - 1
    return {
        "launches": len(found),
        "waits": waits,
        "gpu_us": round(sum(e.time_range.elapsed_us() for e in found)),
        "longest": {name: [len(us), round(sum(us))] for name, us in longest},
    }


def compile_beside(sections: list[str]) -> None:
    """Have a process for each section fill Triton's cache, at a small scale."""
    command = [sys.executable, __file__, "--scale", "0.002", "--compile-only", "--only"]
    running = [
        subprocess.Popen([*command, section], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for section in sections
    ]
    for process in running:
        process.wait()


def best_tuning(bench: Bench) -> Tuning:
    apart, fused = (bench.best.get(kind, (float("inf"), {})) for kind in ("apart", "fused"))
    return Tuning(
        first=bench.options("first bf16 of 104") or {"rows": 8},
        others=bench.options("others"),
        gradient=bench.options("gradient"),
        norm_forward=bench.options("norm_forward bfloat16"),
        norm_backward=bench.options("norm_backward bfloat16"),
        fused=fused[1] if fused[0] < apart[0] else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--budget-s", type=float, default=75.0)
    parser.add_argument("--out")
    parser.add_argument("--only", nargs="*", help="sections to run")
    parser.add_argument("--compile-only", action="store_true", help="each once, not timed")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    bench = Bench(device, arguments.scale, arguments.budget_s, arguments.out)
    bench.once |= arguments.compile_only
    if not bench.once:
        compile_beside(
            arguments.only or ["step", "norm", "first", "others", "fused", "sampler", "norm32"]
        )
        bench.add(name="compiled")
    bench.add(
        name="versions",
        torch=torch.__version__,
        triton=triton.__version__,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    )
    torch.manual_seed(0)
    sample = samples.random_sample(device, arguments.scale, 4)
    table = torch.randn(samples.scaled(samples.NODES, arguments.scale), COLUMNS, device=device)
    bench.add(name="sizes", nodes=sample.nodes_per_hop, edges=sample.edges_per_hop)
    norms = [(4, 4), (8, 4), (8, 8), (16, 8), (2, 2), (1, 1)]
    padded = [(8, 5, False, 4), (8, 10, False, 4), (2, 5, False, 1), (16, 5, False, 4),
              (16, 5, False, 8), (8, 8, True, 4), (1, 16, True, 1), (2, 16, True, 2)]  # fmt: skip
    first = {
        "bf16 of 104": padded,
        "bf16 of 100": [(4, 5, False, 4), (8, 10, False, 4)],
        "fp32": [(4, 5, False, 4), (8, 5, False, 4)],
        "bf16 of 128": [(8, 5, False, 4)],
    }
    others = [(4, 5, False, 4), (4, 10, False, 4), (8, 5, False, 4), (8, 5, False, 8),
              (1, 10, False, 1), (4, 8, True, 4), (1, 16, True, 1)]  # fmt: skip
    backward = [(4, 4, False, 4, True, 16), (4, 4, False, 4, True, 8), (4, 2, False, 4, True, 8),
                (8, 4, False, 8, True, 8), (2, 4, False, 2, True, 8), (1, 4, False, 1, True, 4),
                (4, 4, True, 4, True, 8), (4, 4, False, 4, False, 8)]  # fmt: skip
    fused = [(4, 4, 4, 64, None), (4, 4, 4, 64, 96), (4, 2, 4, 64, 96), (4, 4, 4, 128, None),
             (1, 4, 1, 32, None)]  # fmt: skip
    if (
        device.type == "cpu" and not arguments.compile_only
    ):  # the interpreter is slow: one or two of each
        norms, others, backward = norms[3:4], others[2:3] + others[5:6], backward[3:7:3]
        fused = fused[:1]
        first = {name: of_table[-1:] for name, of_table in first.items()}
    sections = {
        "step": lambda: bench_step(bench, sample, table, "default", Tuning()),
        "bandwidth": lambda: bench_bandwidth(bench),
        "norm": lambda: bench_norm(bench, norms),
        "first": lambda: bench_first_layer(bench, sample, table, first),
        "others": lambda: bench_other_layers(bench, sample, others, backward),
        "fused": lambda: bench_gradient_norm(bench, sample, fused),
        "sampler": lambda: bench_sampler(bench, [(128, 4), (32, 1)]),
        "transposed": lambda: bench_transposed(bench, sample),
        "best": lambda: bench_step(bench, sample, table, "best", best_tuning(bench)),
        "training": lambda: bench_training(bench, table, best_tuning(bench)),
        "optimizer": lambda: bench_optimizer(bench),
        "products": lambda: bench_products(bench),
        "norm32": lambda: bench_norm(bench, [(4, 4), (8, 8)], torch.float32),
    }
    kept_s = 0.2 * arguments.budget_s  # for the step with the best of each
    bench.budget_s -= kept_s
    for name, section in sections.items():
        if name == "best":
            bench.budget_s += kept_s
        if arguments.only is None or name in arguments.only:
            bench.section(name, section)
    bench.add(name="best", **{kind: options for kind, (_, options) in bench.best.items()})
    print(json.dumps({"seconds": time.perf_counter() - bench.start, "rows": bench.rows}))


if __name__ == "__main__":
    main()
