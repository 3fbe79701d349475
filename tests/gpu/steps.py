"""The steps of a visit to a GPU (campaign.py): each takes what it is given, returns what it found.

    python3 tests/gpu/steps.py NAME '{"device": "cuda", "scale": 1, "store": ..., ...}'

given: device; scale of the graph; store, its folder; scratch and out, folders. The last line of the
standard output is the result as JSON; what of it failed stands under "failed".
"""

from __future__ import annotations

import contextlib
import gc
import gzip
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
from importlib.metadata import PackageNotFoundError, version
from itertools import count, islice
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
from sagebench.engines.base import make_engine  # noqa: E402
from sagebench.engines.precision import set_precision  # noqa: E402
from sagebench.files import read_json, write_json  # noqa: E402
from sagebench.graph.checks import SPLITS  # noqa: E402
from sagebench.graph.store import MANIFEST, GraphStore  # noqa: E402
from sagebench.grid.trial import Trial  # noqa: E402
from sagebench.kernels.mask import keep_mask  # noqa: E402
from sagebench.kernels.segment import _by_source, segment_aggregate  # noqa: E402
from sagebench.measure import machine  # noqa: E402
from sagebench.measure.clocks import PhaseClock  # noqa: E402
from sagebench.measure.machine import Nvml  # noqa: E402
from sagebench.training.distributed import (  # noqa: E402
    Communicator,
    Progress,
    RankEnvironment,
)
from sagebench.training.trainer import Trainer, synchronise_device  # noqa: E402

GIB = 1 << 30
FANOUT = [15, 10, 10, 10, 10]
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
                "hidden_channels": 256,
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


def seconds_of(work: Callable[[], Any], device: torch.device, repeats: int = 15) -> float:
    """Median, by events on a GPU; three calls before are left out."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return median(times)


def kernels(given: Given) -> dict[str, Any]:
    """The operations of a step at their true sizes: 560,143 rows of layer 1, 123,918 of layer 2."""
    device = torch.device(given.device)
    n1, n2, nodes = (max(64, int(given.scale * n)) for n in (560_143, 123_918, 2_449_029))
    found: dict[str, Any] = {}

    def measure(name: str, moved: float, work: Callable[[], Any], flops: float = 0) -> None:
        """moved: bytes, each read or written once."""
        try:
            s = seconds_of(work, device)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:300]
            return
        found[name] = {"ms": round(1e3 * s, 4), "GB/s": round(moved / s / 1e9)}
        if flops:
            found[name]["TFLOP/s"] = round(flops / s / 1e12, 1)

    pair = torch.empty(2, int(given.scale * 1e9) + 1000, device=device)
    measure("copy", pair.nbytes, lambda pair=pair: pair[0].copy_(pair[1]))
    del pair
    side = 8192 if given.on_gpu else 256
    a = torch.randn(side, side, device=device).bfloat16()
    measure(f"matmul {side} bf16", 6 * side**2, lambda a=a: a @ a, 2 * side**3)
    ptr = {n: torch.arange(0, 10 * n + 1, 10, device=device) for n in (n1, n2)}
    col1 = torch.randint(nodes, (10 * n1,), device=device, dtype=torch.int32)
    col2 = torch.randint(n1, (10 * n2,), device=device, dtype=torch.int32)
    for dtype in (torch.float32, torch.bfloat16):
        size, short = dtype.itemsize, str(dtype).removeprefix("torch.")
        x = torch.randn(nodes, 100, device=device).to(dtype)
        h = torch.randn(n1, 256, device=device).to(dtype)
        f = torch.randn(n1, 100, device=device).to(dtype)
        w = torch.ones(256, device=device, dtype=dtype, requires_grad=True)
        g, square, wide = torch.randn_like(h), h[:256].clone(), h[:256, :100].clone()
        needing = h.clone().requires_grad_()
        y = F.layer_norm(needing, (256,), w, w)
        rows: tuple[tuple[str, float, Callable[[], Any], float], ...] = (
            ("segment mean, layer 1", 11 * n1 * 100 * size,
             lambda x=x: segment_aggregate(x, ptr[n1], col1, "mean"), 0),
            ("segment mean, layer 2", 11 * n2 * 256 * size,
             lambda h=h: segment_aggregate(h, ptr[n2], col2, "mean"), 0),
            ("layer_norm", 2 * h.nbytes, lambda h=h, w=w: F.layer_norm(h, (256,), w, w), 0),
            ("layer_norm backward", 3 * h.nbytes,
             lambda y=y, g=g, q=needing, w=w: torch.autograd.grad(
                 y, (q, w), g, retain_graph=True), 0),
            ("linear 256", 2 * h.nbytes, lambda h=h, m=square: F.linear(h, m), 2 * n1 * 256**2),
            ("linear 100", f.nbytes + h.nbytes, lambda f=f, m=wide: F.linear(f, m),
             2 * n1 * 25600),
            ("weight gradient 100", f.nbytes + h.nbytes, lambda f=f, g=g: g.t() @ f,
             2 * n1 * 25600),
        )  # fmt: skip
        for name, moved, work, flops in rows:
            measure(f"{name}, {short}", moved, work, flops)
        del x, h, f, g, needing, y, rows
    ids = torch.randint(nodes, (n1,), device=device)
    measure("keep_mask", n1 * 256, lambda: keep_mask(7, ids, 256, 0.5))
    measure("edges by source, layer 2", 80 * n2, lambda: _by_source(ptr[n2].int(), col2, n1))
    draws = torch.randint(50, (n1, 10), device=device, dtype=torch.int32)
    measure("sort [n, 10]", 2 * draws.nbytes, lambda: draws.sort(1))
    return found | {"failed": [name for name, result in found.items() if isinstance(result, str)]}


def make_trainer(given: Given, trial: Trial) -> Trainer:
    device = torch.device(given.device, 0 if given.on_gpu else None)
    torch.set_num_threads(trial.threads_per_rank)
    set_precision(trial, device)
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
    """A step by phase, by kernel, and by the lines where the host waits for the GPU."""
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as profiled

    trainer = make_trainer(given, given.trial(precision="bf16"))
    found: dict[str, Any] = {"steps": steps_of(trainer, 30 if given.on_gpu else 2, 5)}
    batches = list(islice(all_batches(trainer), 10))
    phases: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
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
        found["waits_in_2_steps"] = waits_by_line(trainer, batches[8:])
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
    (given.out / "profile.txt").write_text(table)
    trace = given.scratch / "trace.json"
    record.export_chrome_trace(str(trace))
    with trace.open("rb") as source, gzip.open(given.out / "trace.json.gz", "wb") as target:
        shutil.copyfileobj(source, target)
    return found


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
        for micro_batch in batches:
            batch = trainer.engine.load(trainer.engine.sample(micro_batch))
            trainer.micro_step(batch, synchronise=True)
            trainer.optimizer_step()
        torch.cuda.set_sync_debug_mode("default")
    return dict(lines)


def sweep(given: Given) -> dict[str, Any]:
    """Step times and memory over precisions, workers, batch sizes, placements, and compiled."""
    variants: list[tuple[str, dict[str, Any], int]] = [
        ("bf16", {}, 40),
        ("tf32", {"precision": "tf32"}, 30),
        ("fp32", {"precision": "fp32"}, 30),
        ("workers 0", {"sampling_workers": 0}, 30),
        ("workers 4", {"sampling_workers": 4}, 40),
        *((f"batch {b}", {"batch_size": b}, 12) for b in (512, 1024, 2048, 4096)),
        ("[15, 10, 5], batch 1024", {"fanout": [15, 10, 5], "batch_size": 1024}, 60),
        ("max", {"aggregator": "max"}, 6),
        ("host", {"placement": "host", "sampling_workers": 8}, 12),
        ("compiled", {"compile": True}, 40),
        ("compiled, batch 1024", {"compile": True, "batch_size": 1024}, 12),
    ]
    if not given.on_gpu:
        variants = [(n, {**v, "batch_size": 16}, 1) for n, v, _ in variants if n != "tf32"]
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


STEPS = {
    step.__name__: step
    for step in (facts, kernels, profile, epochs, sweep, out_of_memory, frontier, engines)
}


def main() -> None:
    result = STEPS[sys.argv[1]](Given.read(sys.argv[2]))
    print(json.dumps(result, default=str), flush=True)
    os._exit(0)  # nobody waits for threads that sample ahead


if __name__ == "__main__":
    main()
