"""The steps of a visit to a GPU (campaign.py): each takes what it is given, returns what it found.

    python3 tests/gpu/steps.py NAME '{"device": "cuda", "scale": 1, "store": ..., ...}'

given: device; scale of the graph; store, its folder; scratch and out, folders. The last line of the
standard output is the result as JSON; what of it failed stands under "failed".
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count, islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS))
# As the launcher does: threads that spin take the cores from those that sample ahead.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from sagebench import operations  # noqa: E402
from sagebench.engines.base import make_engine, network_arguments  # noqa: E402
from sagebench.engines.precision import set_precision  # noqa: E402
from sagebench.estimate.trace import Recorder, tensors_in  # noqa: E402
from sagebench.files import read_json, write_json  # noqa: E402
from sagebench.graph.checks import SPLITS  # noqa: E402
from sagebench.graph.store import MANIFEST, GraphStore  # noqa: E402
from sagebench.grid.trial import Trial  # noqa: E402
from sagebench.kernels.choice import choose_kernels, kernels_chosen, missing  # noqa: E402
from sagebench.kernels.fused import norm_relu_dropout  # noqa: E402
from sagebench.kernels.segment import (  # noqa: E402
    aggregate_beside_root,
    aggregate_with_root,
    segment_aggregate,
)
from sagebench.measure import machine  # noqa: E402
from sagebench.measure.clocks import PhaseClock  # noqa: E402
from sagebench.measure.machine import Nvml  # noqa: E402
from sagebench.measure.memory import limit_memory  # noqa: E402
from sagebench.models.base import Network  # noqa: E402
from sagebench.operations import AUTO, PLAIN  # noqa: E402
from sagebench.sampling.blocks import torch_view  # noqa: E402
from sagebench.sampling.device.uniform import Sampler  # noqa: E402
from sagebench.training.distributed import (  # noqa: E402
    Communicator,
    Progress,
    RankEnvironment,
)
from sagebench.training.evaluation import Evaluator  # noqa: E402
from sagebench.training.trainer import Trainer, synchronise_device  # noqa: E402
from torch import Tensor  # noqa: E402

Work = Callable[[], Any]
GIB = 1 << 30
FANOUT = [15, 10, 10, 10, 10]
HIDDEN = 256
WAYS = ("kernels", "plain")
WITH_THE_HOST = ("sample", "Adam")
"""operations whose time is also that of their launches, and of waits for the GPU"""
PRECISIONS: dict[str, dict[str, Any]] = {
    name + suffix: {"precision": name, "kernels": kernels}
    for name in ("bf16", "tf32", "fp32")
    for suffix, kernels in (("", AUTO), (", plain", PLAIN))
}
SMALL_GIB = 4.0
"""holds graph and features of ogbn-products, and no hidden layer of every node"""
CARD_GIB = 39.49
"""what torch finds on an A100-40GB"""
CONTEXT_GIB = 0.5
"""what CUDA's context takes of a card"""


@dataclass(frozen=True)
class Given:
    device: str
    scale: float
    store: Path
    scratch: Path
    out: Path
    only: tuple[str, ...] = ()
    label: str = ""

    @classmethod
    def read(cls, text: str) -> Given:
        values = json.loads(text)
        paths = {name: Path(values[name]) for name in ("store", "scratch", "out")}
        return cls(**{**values, **paths, "only": tuple(values.get("only", ()))})

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def note(self, file: str, record: dict[str, Any]) -> None:
        """Kept should the step be out of time."""
        with (self.out / file).open("a") as lines:
            lines.write(json.dumps(record) + "\n")

    def trial(self, **values: Any) -> Trial:
        """A trial of the slides' default configuration; `values` override."""
        return Trial.from_json(
            {
                "dataset": GraphStore.open(self.store).manifest["source"],
                "layers": len(values.get("fanout", FANOUT)),
                "hidden_channels": HIDDEN,
                "dropout": 0.5,
                "batch_size": 128,
                "accumulation": 1,
                "fanout": FANOUT,
                "epochs": 1,
                "threads_per_rank": min(8, os.cpu_count() or 1),
                "sampling_workers": 1,
                "learning_rate_scaling": "none",
                "phase_window_steps": 0,
                "device": self.device,
                "machine": "campaign",
                **values,
            }
        )

    def short_store(self, name: str, train: int, others: int) -> Path:
        """The graph with fewer nodes to train on and to test; its arrays are links to the whole
        one's."""
        folder = self.scratch / name
        folder.mkdir()
        manifest = read_json(self.store / MANIFEST)
        for array, described in manifest["arrays"].items():
            file = described["file"]
            if array not in SPLITS:
                (folder / file).symlink_to((self.store / file).resolve())
                continue
            ids = np.load(self.store / file)
            count = min(train if array == "train" else others, len(ids))
            chosen = np.random.default_rng(0).choice(ids, count, replace=False)
            np.save(folder / file, np.sort(chosen))
            described["shape"] = [count]
        write_json(folder / MANIFEST, manifest)
        return folder


def facts(given: Given) -> dict[str, Any]:
    """The machine, its software and its GPU."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "cores": os.cpu_count()}
    for name in ("torch", "triton", "numba", "numpy", "torch_geometric", "pydantic"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found["compilers"] = {name: shutil.which(name) for name in ("gcc", "g++", "nvcc")}
    for folder in (str(given.scratch), "/dev/shm"):
        with contextlib.suppress(OSError):
            found[f"free GB {folder}"] = round(shutil.disk_usage(folder).free / 1e9, 1)
    device = torch.device(given.device)
    found |= {"versions": machine.collect_versions(), **machine.collect_device(device)}
    if given.on_gpu:
        nvml = Nvml()
        found |= {"properties": str(torch.cuda.get_device_properties(device)), **nvml.state(0)}
        start = time.perf_counter()
        torch.zeros(1, device=device)
        found["context_s"] = round(time.perf_counter() - start, 3)
    return found


def seconds_of(work: Work, given: Given, queued: bool = True) -> float:
    """Median of a function that was called before, by events on a GPU. queued: without the host's
    time, which is ahead by some 2 ms."""
    if not given.on_gpu:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    times = []
    for _ in range(15):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if queued:
            torch.cuda._sleep(4_000_000)  # clock cycles
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return median(times)


def copy_gb_per_s(given: Given) -> float:
    """The bandwidth that all shares are of: bytes read and written by copying 4 GB."""
    pair = torch.empty(2, int(given.scale * 1e9) + 1000, device=given.device)
    pair[0].copy_(pair[1])
    return pair.nbytes / seconds_of(lambda: pair[0].copy_(pair[1]), given) / 1e9


@contextlib.contextmanager
def chosen(way: str, given: Given) -> Iterator[None]:
    """`kernels`: on a CPU too, in Triton's interpreter. Any other way: the plain path."""
    with kernels_chosen(AUTO if way == "kernels" else PLAIN, given.device):
        if way == "kernels":
            operations.device_types.add(given.device)
        yield


def backward_of(forward: Work, *inputs: Tensor) -> Work:
    """The backward pass alone; forward runs at the first call, as is chosen then."""

    @cache
    def graph() -> tuple[list[Tensor], list[Tensor]]:
        outputs = tensors_in(forward())
        return outputs, [torch.randn_like(out) for out in outputs]

    def backward() -> tuple[Tensor, ...]:
        outputs, upstream = graph()
        return torch.autograd.grad(outputs, inputs, upstream, retain_graph=True)

    return backward


def kernels(given: Given) -> dict[str, Any]:
    """The kernels beside the plain path, and cuSPARSE, on a sample of the graph.

    bytes and launches: those that the first way of a row declares, as if no cache held any of it:
    a share of a copy's bandwidth may be more than 1.
    """
    if why := missing():
        return {"left_out": why, "failed": ["kernels"] * given.on_gpu}
    if not given.on_gpu:
        sys.path.append(str(ROOT / "tests"))
        importlib.import_module("triton_interpreter")
    copied = copy_gb_per_s(given)
    found: dict[str, Any] = {"copy_gb_per_s": round(copied)}
    failed: list[str] = []
    for name, ways in operations_of_a_step(given):
        row: dict[str, Any] = {}
        for way, work in ways.items():
            try:
                with chosen(way, given):
                    first = tensors_in(work())
                    again = [tensors_in(work()) for _ in range(4 if given.on_gpu else 1)]
                    same = all(map(torch.equal, first * len(again), chain(*again)))
                    if "bytes" not in row:
                        with Recorder() as recorder:
                            work()
                        row |= {
                            "bytes": recorder.cost.moved_bytes,
                            "launches": recorder.cost.launches,
                        }
                    s = seconds_of(work, given, queued=name not in WITH_THE_HOST)
                gb_per_s = row["bytes"] / s / 1e9
                row[way] = {
                    "ms": round(1e3 * s, 4),
                    "gb_per_s": round(gb_per_s),
                    "share": round(gb_per_s / copied, 3),
                    **({"tflops": round(recorder.flops / s / 1e12, 1)} if recorder.flops else {}),
                    **({"bit_equal": same} if first else {}),
                }
                if way == "kernels" and not same:
                    failed.append(f"{name}: not equal to the bit")
            except Exception as error:
                row[way] = f"{type(error).__name__}: {error}"[:300]
                failed.append(f"{name}, {way}")
        found[name] = row
        given.note("kernels.jsonl", {name: row})
    return found | {"failed": failed}


def operations_of_a_step(given: Given) -> Iterator[tuple[str, dict[str, Work]]]:
    """Name and ways: what is compared, the one whose bytes count first."""
    from sagebench.kernels.gpu.segment import width_of

    device, store = torch.device(given.device), GraphStore.open(given.store)
    arrays = store.colptr, store.row, store.features
    colptr, row, features = (torch_view(array).to(device) for array in arrays)
    fanout, batch_size = (FANOUT, 128) if given.on_gpu else ([4, 3, 2], 2)
    sampler, seeds = Sampler(colptr, row), np.sort(store.train[:batch_size]).astype(np.int64)
    sample = partial(sampler.sample, seeds, fanout, 1, relabel_last=False)
    yield "sample", {"kernels": sample, "plain": sample}
    with chosen("kernels", given):
        blocks = sample()
    n1, n2, edges = blocks.destinations(1), blocks.destinations(2), blocks.edges(2)
    ids, by_source = blocks.node_ids, blocks.by_source_of(2)
    rowptr, col = blocks.rowptr[: n2 + 1], blocks.cols[:edges]
    gamma, beta = (torch.randn(HIDDEN, device=device).requires_grad_() for _ in range(2))
    for dtype in (torch.bfloat16, torch.float32):
        table = features.to(dtype)
        h, x = (torch.randn(n1, HIDDEN, device=device).to(dtype).requires_grad_() for _ in range(2))
        norm = partial(norm_relu_dropout, x, gamma, beta, 0.5, 7, True, rows=ids)
        both = partial(aggregate_beside_root, h, rowptr, col, True, dtype, by_source=by_source)
        apart = partial(aggregate_with_root, h, rowptr, col, "mean")
        highest = partial(aggregate_with_root, h, rowptr, col, "max", by_source)
        mean = partial(segment_aggregate, h.detach(), rowptr, col, "mean")
        degrees = rowptr.diff()
        matrix = torch.sparse_csr_tensor(
            rowptr.int(),
            col.int(),
            degrees.float().reciprocal().to(dtype).repeat_interleave(degrees),
            (n2, len(h)),
        )
        first = table, blocks.rowptr, blocks.neighbors
        rows: dict[str, dict[str, Work]] = {
            "norm + ReLU + dropout": {"kernels": norm, "plain": norm},
            "norm + ReLU + dropout backward": {
                way: backward_of(norm, x, gamma, beta) for way in WAYS
            },
            "mean and root, layer 1": {
                "kernels": partial(aggregate_beside_root, *first, True, dtype, ids=ids),
                "plain": lambda t=table, f=first: (segment_aggregate(*f, "mean"), t[ids]),
            },
            "mean and root, layer 2": {"kernels": both, "plain": apart},
            "mean and root backward, layer 2": {
                "kernels": backward_of(both, h),
                "plain": backward_of(apart, h),
            },
            "mean alone, layer 2": {"kernels": mean, "plain": mean},
            "max, layer 2": {"kernels": highest, "plain": highest},
            "max backward, layer 2": {way: backward_of(highest, h) for way in WAYS},
        }
        if given.on_gpu or dtype == torch.float32:  # what a CPU has no bf16 for
            alone = rows["mean alone, layer 2"]
            alone["cusparse"] = lambda m=matrix, h=h: m @ h.detach()
        wide = torch.randn(n1, 2 * width_of(table.shape[1]), device=device).to(dtype)
        weight = torch.randn(HIDDEN, wide.shape[1], device=device).to(dtype)
        rows["product, layer 1"] = {"torch": partial(F.linear, wide, weight)}
        rows["product of the weights' gradient"] = {"torch": lambda x=x, w=wide: x.detach().t() @ w}
        for name, ways in rows.items():
            yield f"{name}, {str(dtype).removeprefix('torch.')}", ways
        del rows, table, h, x, wide, matrix, first, norm, both, apart, highest, mean
    yield "Adam", {"kernels": adam(given, fused=True), "plain": adam(given, fused=None)}


def adam(given: Given, fused: bool | None) -> Work:
    network = Network(**network_arguments(given.trial(), GraphStore.open(given.store)))
    for parameter in network.to(given.device).parameters():
        parameter.grad = torch.randn_like(parameter)
    return torch.optim.Adam(network.parameters(), fused=fused).step


def make_trainer(given: Given, trial: Trial) -> Trainer:
    device = torch.device(given.device, 0 if given.on_gpu else None)
    torch.set_num_threads(trial.threads_per_rank)
    set_precision(trial, device)
    choose_kernels(AUTO if trial.asks_for_kernels else PLAIN, device.type)
    torch.manual_seed(trial.seed)
    store = GraphStore.open(given.store)
    engine = make_engine(trial, store, device)
    communicator = Communicator(RankEnvironment(), device)
    progress = Progress(speaks=False)
    trainer = Trainer(trial, engine, store.train, communicator, PhaseClock(), progress)
    engine.model.train()
    trainer.warm_up()
    return trainer


def all_batches(trainer: Trainer) -> Iterator[Any]:
    """Micro-batches, epoch after epoch."""
    for epoch in count(1):
        yield from trainer.order.micro_batches(epoch, 0)


def steps_of(trainer: Trainer, steps: int, warm: int = 3) -> dict[str, Any]:
    """Steps as an epoch runs them, sampling in the background; the device is waited for at the
    ends. host_ms: until the host had queued them."""
    on_gpu = trainer.device.type == "cuda"
    stream = trainer.engine.stream(islice(all_batches(trainer), warm + steps))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = wait_s = edges = 0.0
    for n in range(warm + steps):
        if n == warm:
            synchronise_device(trainer.device)
            start, wait_s, edges = time.perf_counter(), 0.0, 0
        asked = time.perf_counter()
        batch = next(stream)
        wait_s += time.perf_counter() - asked
        edges += sum(batch.edges_per_hop)
        trainer.micro_step(batch, synchronise=True)
        trainer.optimizer_step()
    queued_s = time.perf_counter() - start
    synchronise_device(trainer.device)
    seconds = time.perf_counter() - start
    found: dict[str, Any] = {
        "ms": round(1e3 * seconds / steps, 3),
        "host_ms": round(1e3 * queued_s / steps, 3),
        "wait_ms": round(1e3 * wait_s / steps, 3),
        "edges": round(edges / steps),
    }
    if on_gpu:
        counted = torch.cuda.memory_stats()
        found |= {
            "allocated_gib": round(torch.cuda.max_memory_allocated() / GIB, 3),
            "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 3),
            "alloc_retries": counted["num_alloc_retries"],
        }
    return found


def forget(trainer: Trainer) -> None:
    """Give all of its memory back to the GPU."""
    trainer.engine.loader = trainer.engine.model = None
    trainer.module = trainer.optimizer = None
    del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def profile(given: Given) -> dict[str, Any]:
    """A step by phase, by kernel, by the lines where the host waits for the GPU, and by its share
    of the bandwidth, for every precision with the kernels and without."""
    (given.out / "profile.txt").unlink(missing_ok=True)
    found: dict[str, Any] = {"copy_gb_per_s": round(copy_gb_per_s(given))}
    for name in sorted(PRECISIONS, key=lambda name: not name.startswith("bf16")):
        if given.on_gpu or not name.startswith("tf32"):
            trainer = make_trainer(given, given.trial(**PRECISIONS[name]))
            found[name] = profile_of(given, name, trainer, found["copy_gb_per_s"])
            given.note("profile.jsonl", {name: found[name]})
            forget(trainer)
    return found


def profile_of(given: Given, name: str, trainer: Trainer, copied: float) -> dict[str, Any]:
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as profiled

    found: dict[str, Any] = {"steps": steps_of(trainer, 30 if given.on_gpu else 2, 5)}
    batches = list(islice(all_batches(trainer), 14))
    phases: dict[str, list[float]] = {}

    def timed(name: str, work: Work) -> Any:
        synchronise_device(trainer.device)
        start = time.perf_counter()
        result = work()
        synchronise_device(trainer.device)
        phases.setdefault(name, []).append(1e3 * (time.perf_counter() - start))
        return result

    for micro_batch in batches[:8]:
        sampled = timed("sample", lambda b=micro_batch: trainer.engine.sample(b))
        batch = timed("load", lambda s=sampled: trainer.engine.load(s))
        timed("step", lambda b=batch: trainer.micro_step(b, synchronise=True))
        timed("optimizer", trainer.optimizer_step)
    found["phases_ms"] = {name: round(median(values), 3) for name, values in phases.items()}
    if given.on_gpu:
        found["waits_in_2_steps"] = waits_by_line(trainer, batches[8:10])
    with Recorder() as recorder:
        step_by_step(trainer, batches[10:])
    moved = recorder.cost.moved_bytes / len(batches[10:])
    gb_per_s = moved / found["steps"]["ms"] / 1e6
    found["bandwidth"] = {
        "step_bytes": round(moved),
        "launches": recorder.cost.launches / len(batches[10:]),
        "gb_per_s": round(gb_per_s),
        "share_of_copy": round(gb_per_s / copied, 3),
    }
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * given.on_gpu
    with profiled(activities=activities) as record:
        stream = trainer.engine.stream(islice(all_batches(trainer), 4))
        for _ in range(4):
            with record_function("wait for the batch"):
                batch = next(stream)
            with record_function("step"):
                trainer.micro_step(batch, synchronise=True)
                trainer.optimizer_step()
        synchronise_device(trainer.device)
    averages = record.key_averages()
    if given.on_gpu:
        launches = [e.count for e in averages if e.key.startswith("cudaLaunchKernel")]
        launches += [e.count for e in averages if e.key.startswith("cuLaunchKernel")]
        found["launches_a_step"] = sum(launches) / 4
    order = "self_cuda_time_total" if given.on_gpu else "self_cpu_time_total"
    table = averages.table(sort_by=order, row_limit=70, max_name_column_width=90)
    with (given.out / "profile.txt").open("a") as tables:
        tables.write(f"{name}\n{table}\n")
    if name == "bf16":
        trace = given.scratch / "trace.json"
        record.export_chrome_trace(str(trace))
        with trace.open("rb") as source, gzip.open(given.out / "trace.json.gz", "wb") as target:
            shutil.copyfileobj(source, target)
    return found


def step_by_step(trainer: Trainer, batches: list[Any]) -> list[Tensor]:
    """Nothing ahead; the losses."""
    losses = []
    for micro_batch in batches:
        batch = trainer.engine.load(trainer.engine.sample(micro_batch))
        losses.append(trainer.micro_step(batch, synchronise=True)[0])
        trainer.optimizer_step()
    return losses


def waits_by_line(trainer: Trainer, batches: list[Any]) -> dict[str, int]:
    """Where the host waits for the device: sampling, loading and a step of some micro-batches."""
    lines: Counter[str] = Counter()

    def seen(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            frames = [f for f in traceback.extract_stack() if "sagebench/" in f.filename]
            at = frames[-1] if frames else None
            lines[f"{Path(at.filename).name}:{at.lineno}" if at else "elsewhere"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = seen
        torch.cuda.set_sync_debug_mode("warn")
        step_by_step(trainer, batches)
        torch.cuda.set_sync_debug_mode("default")
    return dict(lines)


def sweep(given: Given) -> dict[str, Any]:
    """Step times and memory over precisions, workers, batch sizes, placements, and compiled."""
    compiled = {"compile": True, "kernels": PLAIN}
    variants: list[tuple[str, dict[str, Any], int]] = [
        *((name, values, 30) for name, values in PRECISIONS.items()),
        ("workers 0", {"sampling_workers": 0}, 30),
        ("workers 4", {"sampling_workers": 4}, 40),
        *((f"batch {b}", {"batch_size": b}, 12) for b in (512, 1024, 2048, 4096)),
        ("[15, 10, 5], batch 1024", {"fanout": [15, 10, 5], "batch_size": 1024}, 60),
        ("max", {"aggregator": "max"}, 6),
        ("host", {"placement": "host", "sampling_workers": 8}, 12),
        ("compiled", compiled, 40),
        ("compiled, batch 1024", {**compiled, "batch_size": 1024}, 12),
    ]
    if not given.on_gpu:
        variants = [(n, {**v, "batch_size": 16}, 1) for n, v, _ in variants if "tf32" not in n]
    found: dict[str, Any] = {}
    for name, values, steps in variants:
        if name not in given.only if given.only else name.startswith("compiled"):
            continue
        try:
            trainer = make_trainer(given, given.trial(**{"precision": "bf16", **values}))
            result: Any = steps_of(trainer, steps)
            forget(trainer)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"[:400]
        found[given.label + name] = result
        given.note("sweep.jsonl", {given.label + name: result})
    return found | {"failed": [name for name, result in found.items() if isinstance(result, str)]}


def repeatable(given: Given) -> dict[str, Any]:
    """Two runs of the same steps, sampled ahead: losses and weights are equal to the bit, or this
    fails."""
    steps = 8 if given.on_gpu else 2
    found: dict[str, Any] = {}
    for name, values in {
        "bf16": {"precision": "bf16", "sampling_workers": 4},
        "fp32": {},
        "max": {"precision": "bf16", "aggregator": "max"},
    }.items():
        runs = []
        for _ in range(2):
            trainer = make_trainer(given, given.trial(**values))
            losses = []
            for batch in trainer.engine.stream(islice(all_batches(trainer), steps)):
                losses.append(trainer.micro_step(batch, synchronise=True)[0])
                trainer.optimizer_step()
            weights = [p.detach().flatten() for p in trainer.engine.model.parameters()]
            runs.append((torch.stack(losses).cpu(), torch.cat(weights).cpu()))
            forget(trainer)
        same = [torch.equal(*both) for both in zip(*runs, strict=True)]
        found[name] = {"losses_equal": same[0], "weights_equal": same[1]}
        found[name]["losses"] = runs[0][0].tolist()
    equal = {name: r["losses_equal"] and r["weights_equal"] for name, r in found.items()}
    return found | {"failed": [name for name, same in equal.items() if not same]}


def evaluation(given: Given) -> dict[str, Any]:
    """Full evaluation over the whole graph, and where the hidden layers do not fit, beside the time
    that a copy of as many bytes would take."""
    store, copied = GraphStore.open(given.store), copy_gb_per_s(given)
    asked = store.valid
    moved = 0.0
    widths = [store.num_features, *[HIDDEN] * (len(FANOUT) - 1), store.num_classes]
    for layer, (read, written) in enumerate(pairwise(widths), start=1):
        share = len(asked) / store.num_nodes if layer == len(FANOUT) else 1
        of_edges = store.num_edges * (4 * read + 4)
        moved += share * (of_edges + store.num_nodes * 4 * (read + written))
    found: dict[str, Any] = {
        "bound": "over layers, edges x (4 in + 4) + nodes x 4 (in + out) bytes, of the last layer "
        "the share of the nodes that are asked for; over the bandwidth of a copy",
        "bound_s": moved / copied / 1e9,
        "copy_gb_per_s": round(copied),
    }
    variants: dict[str, dict[str, Any]] = {
        "kernels": {},
        "plain": {"kernels": PLAIN},
        f"{SMALL_GIB:g} GiB": {"memory_limit_gib": SMALL_GIB},
    }
    for name, values in variants.items():
        trainer = make_trainer(given, given.trial(**values))
        communicator, loader = trainer.communicator, trainer.engine.loader
        evaluator = Evaluator(trainer.trial, store, communicator, loader, trainer.progress)
        weights = trainer.engine.model.state_dict()
        if given.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            if values.get("memory_limit_gib"):
                limit_memory(trainer.device, SMALL_GIB)
        seconds = []
        try:
            for _ in range(2):
                start = time.perf_counter()
                accuracy = evaluator.accuracy(weights, asked, "full")
                seconds.append(round(time.perf_counter() - start, 4))
            result: Any = {"first_s": seconds[0], "s": seconds[1], "accuracy": accuracy}
            result["times_the_bound"] = round(seconds[1] / found["bound_s"], 2)
            if given.on_gpu:
                result["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 3)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"[:400]
        found[name] = result
        given.note("evaluation.jsonl", {name: result})
        del evaluator, loader, weights
        forget(trainer)
    return found | {"failed": [name for name in variants if isinstance(found[name], str)]}


def epochs(given: Given) -> dict[str, Any]:
    """Two epochs of the whole training set by run_trial.py, as a workflow runs a trial."""
    trial = given.trial(
        epochs=2, evaluate_every_epochs=2, precision="bf16", phase_window_steps=20, profile_steps=2
    )
    outcome = run_trial(given, "epochs", trial, given.short_store("epochs", 1 << 40, 4096))
    kept = ("status", "reason", "timing", "phases", "memory", "energy", "accuracy", "sample")
    found = {name: outcome.get(name) for name in kept}
    ranks = outcome.get("ranks") or [{}]
    found["gpu"] = {name: ranks[0].get(name) for name in ("at_end", "num_alloc_retries")}
    found["failed"] = [] if found["status"] == "completed" else [found["status"]]
    return found


def out_of_memory(given: Given) -> dict[str, Any]:
    """A cap that a trial must run into: a measured end by its own limit, and by no other."""
    cap_gib = 4.0 if given.on_gpu else 0.01
    store = given.short_store("out_of_memory", 2048, 64)
    train = len(GraphStore.open(store).train)
    trial = given.trial(batch_size=min(1024, train), precision="bf16", memory_limit_gib=cap_gib)
    outcome = run_trial(given, "out_of_memory", trial, store)
    reason = outcome.get("reason") or {}
    right = outcome["status"] == "out_of_memory" and reason["limit"]["kind"] == "memory_limit"
    failed = [] if right else ["another end than out of memory by the trial's own limit"]
    return {"status": outcome["status"], "reason": reason, "failed": failed}


def run_trial(given: Given, name: str, trial: Trial, store: Path) -> dict[str, Any]:
    """The outcome; where there is none, how the launcher ended."""
    folder = given.scratch / f"trial-{name}"
    write_json(folder / "trial.json", trial.to_json())
    command = [sys.executable, str(SCRIPTS / "run_trial.py"), "--trial", str(folder / "trial.json")]
    command += ["--store", str(store), "--outcome", str(folder / "outcome.json")]
    done = subprocess.run(command, stdout=sys.stderr, stderr=sys.stderr, check=False)
    if not (folder / "outcome.json").exists():
        return {"status": f"no outcome, exit code {done.returncode}"}
    outcome = read_json(folder / "outcome.json")
    given.note("outcomes.jsonl", json.loads(json.dumps(outcome).replace(f"{ROOT}/", "")))
    return outcome


def frontier(given: Given) -> dict[str, Any]:
    """The slides' own path at the slides' batch sizes, in as much memory as an A100-40GB has;
    predicted beside measured."""
    from sagebench.estimate.memory import card_memory
    from sagebench.estimate.probing import probe_store

    found: dict[str, Any] = {}
    sizes = (128, 160, 192, 256) if given.on_gpu else (16,)
    store = GraphStore.open(given.store)
    workers = 8 if given.on_gpu else 1
    trials = {
        size: given.trial(engine="reference", batch_size=size, sampling_workers=workers)
        for size in sizes
    }
    threads, card_bytes = given.trial().threads_per_rank, int(CARD_GIB * GIB)
    probe = probe_store(store, trials.values(), given.scratch / "probe.json", threads=threads)
    if given.on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        share = min(1.0, (CARD_GIB - CONTEXT_GIB) * GIB / total)
        torch.cuda.set_per_process_memory_fraction(share, 0)
    for size, trial in trials.items():
        sample, cost = probe.sample_of(trial), probe.cost_of(trial, card_bytes)
        memory = card_memory(trial, cost, sample, probe.graph, card_bytes)
        said: dict[str, Any] = {
            "predicted_gib": round(memory.peak_bytes / GIB, 2),
            "predicted_needed_gib": round(memory.needed_bytes / GIB, 2),
        }
        try:
            trainer = make_trainer(given, trial)
            said |= steps_of(trainer, 6 if given.on_gpu else 1, 2 if given.on_gpu else 1)
            forget(trainer)
        except torch.cuda.OutOfMemoryError as error:
            said["out_of_memory"] = str(error).splitlines()[0][:200]
            gc.collect()
            torch.cuda.empty_cache()
        found[str(size)] = said
        given.note("sweep.jsonl", {f"reference {size}, 39 GiB": said})
        if "out_of_memory" in said:
            break
    return found


def engines(given: Given) -> Any:
    """The row `step` of `make bench`: the engines side by side."""
    command = [sys.executable, str(SCRIPTS / "bench_engine.py"), "--device", given.device]
    command += ["--store", str(given.store), "--only", "step", "--rounds", "1", "--json"]
    command += ["--threads", str(given.trial().threads_per_rank)]
    command += ["--steps", "10" if given.scale == 1 else "1"]
    command += ["--size", "products" if given.scale == 1 else "tiny"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=sys.stderr, check=False)
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


STEPS: dict[str, Callable[[Given], Any]] = {
    step.__name__: step
    for step in (
        facts, kernels, profile, epochs, sweep, engines, repeatable, evaluation, out_of_memory,
        frontier,
    )
}  # fmt: skip


def main() -> None:
    result = STEPS[sys.argv[1]](Given.read(sys.argv[2]))
    print(json.dumps(result, default=str), flush=True)
    os._exit(0)  # nobody waits for threads that sample ahead


if __name__ == "__main__":
    main()
