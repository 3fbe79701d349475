"""The rows of the benchmark: what each runs, and the figures it gives.

A row is a generator function: it yields a line of progress after each measurement, and fills
`bench.figures` (the keys of KEYS, in their order the issue's and the README's) and `bench.details`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from sagebench.bench.engines import BEST_PYG, ENGINES
from sagebench.bench.figures import Figure, figure, ratio
from sagebench.bench.processes import Measured, MeasurementFailed, run_trial, run_worker
from sagebench.bench.sizes import Size
from sagebench.bench.stores import short_store
from sagebench.records import Status

KEYS = (
    "blocks_vs_reference_time_ratio",
    "blocks_vs_reference_memory_ratio",
    "blocks_vs_trimmed_time_ratio",
    "blocks_vs_best_pyg_time_ratio",
    "sampler_edges_per_s",
    "sampler_two_thread_ratio",
    "batch512_host_bytes",
    "two_rank_ratio",
    "sampling_wait_share",
    "trial_start_s",
    "evaluation_s",
    "evaluation_host_bytes",
)

STEPS = {"blocks": 5, "reference": 1}
"""timed steps of a process; of the other engines 2. `reference` takes 20 s a step on two cores"""
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class LeftOut(Exception):
    """A row that this machine has not what it takes for; says what."""


@dataclass
class Bench:
    """What is measured on, and what has been measured."""

    size: Size
    store: Path
    dataset: dict[str, Any]
    device: str
    threads: int
    rounds: int
    engines: tuple[str, ...] = ENGINES
    steps: int | None = None
    cold: bool = False
    figures: dict[str, Figure] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    others_cores: dict[str, list[float]] = field(default_factory=dict)

    def trial(self, **values: Any) -> dict[str, Any]:
        """Values of a trial of this size; `values` override."""
        return {
            "dataset": self.dataset,
            "engine": "blocks",
            "layers": len(self.size.fanout),
            "hidden_channels": self.size.hidden_channels,
            "dropout": 0.5,
            "batch_size": self.size.batch,
            "accumulation": 1,
            "fanout": list(self.size.fanout),
            "epochs": 1,
            "threads_per_rank": self.threads,
            "learning_rate_scaling": "none",
            "phase_window_steps": 0,
            "device": self.device,
            "machine": "bench",
            **values,
        }

    def work(self, row: str, job: str, trial: dict[str, Any], **values: Any) -> Measured:
        return self._seen(row, run_worker({"job": job, **values}, trial, self.store))

    def run(self, row: str, trial: dict[str, Any], store: Path, folder: Path, **how) -> Measured:
        return self._seen(row, run_trial(trial, store, folder, **how))

    def _seen(self, row: str, measured: Measured) -> Measured:
        self.others_cores.setdefault(row, []).append(measured.others_cores)
        return measured


Row = Callable[[Bench], Iterator[str]]


def step(bench: Bench) -> Iterator[str]:
    """One optimizer step of every engine on the same samples, round after round."""
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in bench.engines}
    for turn in range(1, bench.rounds + 1):
        for engine in bench.engines:
            if engine in bench.failures:
                continue
            trial = bench.trial(
                engine=engine,
                fanout=list(bench.size.step_fanout),
                layers=len(bench.size.step_fanout),
                batch_size=bench.size.step_batch,
            )
            steps = bench.steps or STEPS.get(engine, 2)
            try:
                measured = bench.work("step", "step", trial, warm=1, steps=steps)
            except MeasurementFailed as error:
                bench.failures[engine] = str(error)
                yield f"{engine}: FAILED: {error}"
                continue
            result = {**measured.result, "host_bytes": measured.peak_host_bytes}
            found[engine].append(result)
            yield (
                f"round {turn}: {engine:18} {median(result['step_s']):8.3f} s"
                f"  {result['peak_bytes'] / 1e9:6.2f} GB"
            )
    found = {engine: results for engine, results in found.items() if results}
    bench.details["step"] = {engine: _step_summary(results) for engine, results in found.items()}
    if "blocks" not in found:
        return
    times = {e: [result["step_s"] for result in results] for e, results in found.items()}
    candidates = [engine for engine in BEST_PYG if engine in found]
    best = min(candidates, key=lambda engine: figure(_flat(times[engine])).value, default=None)
    bench.details["best_pyg"] = best
    for name, engine in (
        ("blocks_vs_reference_time_ratio", "reference"),
        ("blocks_vs_trimmed_time_ratio", "trimmed"),
        ("blocks_vs_best_pyg_time_ratio", best),
        ("blocks_vs_bipartite_csr_time_ratio", "bipartite_csr"),
    ):
        if engine in found:
            bench.figures[name] = ratio(times[engine], times["blocks"])
            whole = [[sum(parts) for parts in _phases(r)] for r in found[engine]]
            ours = [[sum(parts) for parts in _phases(r)] for r in found["blocks"]]
            with_sampling = name.replace("_time_ratio", "_with_sampling_time_ratio")
            bench.details[with_sampling] = ratio(whole, ours).value
    memory = {e: [[result["peak_bytes"]] for result in results] for e, results in found.items()}
    for engine in ("reference", "trimmed", best):
        if engine in found:
            label = "best_pyg" if engine == best else engine
            bench.figures[f"blocks_vs_{label}_memory_ratio"] = ratio(
                memory[engine], memory["blocks"]
            )


def _phases(result: dict[str, Any]) -> Iterator[tuple[float, ...]]:
    return zip(result["sampling_s"], result["data_s"], result["step_s"], strict=True)


def _step_summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        name: figure([value for result in results for value in result[name]])._asdict()
        for name in ("step_s", "sampling_s", "data_s")
    }
    summary["peak_bytes"] = figure([result["peak_bytes"] for result in results])._asdict()
    summary["host_bytes"] = max(result["host_bytes"] for result in results)
    summary["processes"] = len(results)
    return summary


def sampler(bench: Bench) -> Iterator[str]:
    """The CPU sampler alone: edges a second, with the last hop relabelled and without."""
    rates: dict[tuple[bool, int], list[list[float]]] = {}
    for turn in range(1, bench.rounds + 1):
        for relabel in (True, False):
            for threads in (1, 2):
                trial = bench.trial()
                found = bench.work(
                    "sampler",
                    "sampler",
                    trial,
                    warm=2,
                    steps=bench.steps or 8,
                    threads=threads,
                    relabel_last=relabel,
                ).result["edges_per_s"]
                rates.setdefault((relabel, threads), []).append(found)
                yield (
                    f"round {turn}: {threads} thread{'s' * (threads > 1)}, last hop "
                    f"{'relabelled' if relabel else 'not relabelled'}: {median(found) / 1e6:.1f} M "
                    "edges/s"
                )
    for relabel, suffix in ((True, ""), (False, "_as_blocks_uses_it")):
        one, two = rates[relabel, 1], rates[relabel, 2]
        bench.figures["sampler_edges_per_s" + suffix] = figure(_flat(one))
        bench.figures["sampler_two_thread_ratio" + suffix] = ratio(two, one)


def batch512(bench: Bench) -> Iterator[str]:
    """A whole trial at the batch size that PyG's path has no memory for."""
    batch = bench.size.large_batch
    trial = bench.trial(batch_size=batch, validation="sampled")
    with _scratch() as folder:
        store = short_store(bench.store, folder / "store", train=3 * batch, others=batch)
        measured = bench.run("batch512", trial, store, folder / "trial")
    outcome = measured.result
    if outcome["status"] != Status.COMPLETED:
        raise MeasurementFailed(f"the trial ended {outcome['status']}: {outcome['reason']}")
    bench.figures["batch512_host_bytes"] = figure([measured.peak_host_bytes])
    epoch = outcome["epochs"][0]
    bench.details["batch512"] = {
        "batch_size": batch,
        "training_private_bytes": outcome["memory"]["peak_host_private_bytes"],
        "training_device_reserved_bytes": outcome["memory"]["peak_reserved_bytes"],
        "micro_step_s": epoch["time_s"] / epoch["micro_batches"],
        "edges_per_micro_batch": epoch["edges"] / epoch["micro_batches"],
        "total_s": outcome["timing"]["total_s"],
    }
    yield f"batch {batch}: {measured.peak_host_bytes / 1e9:.2f} GB in all"


def two_rank(bench: Bench) -> Iterator[str]:
    """Two ranks against one that accumulates twice as much, every rank with one thread."""
    if bench.device == "cuda" and gpu_count() < 2:
        raise LeftOut(f"two ranks take two GPUs, and this machine has {gpu_count()}")
    for workers, suffix in ((0, ""), (1, "_sampling_in_background")):
        times: dict[int, list[list[float]]] = {1: [], 2: []}
        for turn in range(1, bench.rounds + 1):
            for ranks in (1, 2):
                trial = bench.trial(
                    ranks=ranks,
                    accumulation=2 // ranks,
                    threads_per_rank=1,
                    sampling_workers=workers,
                )
                found = bench.work("two_rank", "loop", trial, warm=1, steps=bench.steps or 4).result
                times[ranks].append(found["step_s"])
                yield (
                    f"round {turn}: {ranks} rank{'s' * (ranks > 1)}{suffix.replace('_', ' ')}: "
                    f"{median(found['step_s']):.3f} s a step"
                )
        bench.figures["two_rank_ratio" + suffix] = ratio(times[1], times[2])
        bench.details["two_rank" + suffix] = {
            f"step_s_{ranks}_ranks": figure(_flat(values))._asdict()
            for ranks, values in times.items()
        }


def sampling_wait(bench: Bench) -> Iterator[str]:
    """How much of a training step waits for its sample, one thread sampling in the background."""
    shares, steps = [], []
    for turn in range(1, bench.rounds + 1):
        trial = bench.trial(sampling_workers=1)
        found = bench.work("sampling_wait", "loop", trial, warm=3, steps=bench.steps or 10).result
        shares.append(sum(found["wait_s"]) / sum(found["step_s"]))
        steps.append(median(found["step_s"]))
        yield f"round {turn}: {100 * shares[-1]:.1f} % of {steps[-1]:.3f} s a step"
    bench.figures["sampling_wait_share"] = figure(shares)
    bench.details["training_step_s"] = figure(steps)._asdict()


def trial_start(bench: Bench) -> Iterator[str]:
    """From the start of run_trial.py until the first optimizer step is done."""
    trial = bench.trial(epochs=3, evaluate_every_epochs=3)

    def start() -> float:
        with _scratch() as folder:
            store = short_store(
                bench.store, folder / "store", train=bench.size.batch, others=bench.size.batch
            )
            measured = bench.run(
                "trial_start", trial, store, folder / "trial", until_first_step=True
            )
        first = measured.result["epochs"][0]["time_s"]
        steps.append(first)
        return measured.result["start_to_first_step_s"]

    steps: list[float] = []
    start()  # warms the caches
    steps.clear()
    starts = []
    for turn in range(1, bench.rounds + 1):
        starts.append(start())
        yield f"round {turn}: {starts[-1]:.2f} s, {steps[-1]:.2f} s of it the step"
    bench.figures["trial_start_s"] = figure(starts)
    bench.details["trial_first_step_s"] = figure(steps)._asdict()
    bench.details["trial_start_cold_s"] = None
    if bench.cold:
        _drop_caches()
        bench.details["trial_start_cold_s"] = start()
        yield f"cold: {bench.details['trial_start_cold_s']:.2f} s"


def evaluation(bench: Bench) -> Iterator[str]:
    """Every test node, computed layer by layer over the whole graph."""
    measured = bench.work("evaluation", "evaluation", bench.trial())
    result = measured.result
    bench.figures["evaluation_s"] = figure([result["evaluation_s"]])
    bench.figures["evaluation_host_bytes"] = figure([measured.peak_host_bytes])
    bench.details["evaluation_private_bytes"] = result["peak_host_private_bytes"]
    bench.details["evaluation_device_bytes"] = result["peak_allocated_bytes"]
    yield f"{result['evaluation_s']:.1f} s, {measured.peak_host_bytes / 1e9:.2f} GB in all"


ROWS: dict[str, tuple[Row, tuple[str, ...]]] = {
    "step": (step, KEYS[:4]),
    "sampler": (sampler, KEYS[4:6]),
    "batch512": (batch512, KEYS[6:7]),
    "two_rank": (two_rank, KEYS[7:8]),
    "sampling_wait": (sampling_wait, KEYS[8:9]),
    "trial_start": (trial_start, KEYS[9:10]),
    "evaluation": (evaluation, KEYS[10:12]),
}
"""name -> (what runs it, the keys that it owes)"""


def gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def _flat(rounds: list[list[float]]) -> list[float]:
    return [value for repeats in rounds for value in repeats]


def _drop_caches() -> None:
    """Empty the machine's page cache. Raises MeasurementFailed without the right to."""
    try:
        os.sync()
        DROP_CACHES.write_text("1\n")
    except OSError as error:
        raise MeasurementFailed(f"the page cache cannot be emptied: {error}") from None


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sagebench-bench-") as folder:
        yield Path(folder)
