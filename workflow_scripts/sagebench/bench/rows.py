"""The rows of the benchmark: what each runs, and the figures it gives.

A row is a generator function: it yields a line of progress after each measurement, and fills
`bench.figures` and `bench.details`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from sagebench.bench.figures import Figure, figure, flat, ratio
from sagebench.bench.processes import MeasurementFailed, run_worker
from sagebench.bench.setting import BEST_PYG, ENGINES, Size

STEPS = {"blocks": 5, "reference": 1}
"""timed steps of a process; of the other engines 2. `reference` takes 20 s a step on two cores"""


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
    figures: dict[str, Figure] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    others_cores: dict[str, list[float]] = field(default_factory=dict)

    def trial(self, fanout: tuple[int, ...], **values: Any) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "layers": len(fanout),
            "hidden_channels": self.size.hidden_channels,
            "dropout": 0.5,
            "accumulation": 1,
            "fanout": list(fanout),
            "epochs": 1,
            "threads_per_rank": self.threads,
            "learning_rate_scaling": "none",
            "phase_window_steps": 0,
            "device": self.device,
            "machine": "bench",
            **values,
        }

    def work(self, job: str, trial: dict[str, Any], **values: Any) -> dict[str, Any]:
        """The result of the row's job of the same name."""
        measured = run_worker({"job": job, **values}, trial, self.store)
        self.others_cores.setdefault(job, []).append(measured.others_cores)
        return measured.result


def step(bench: Bench) -> Iterator[str]:
    """One optimizer step of every engine on the same samples, round after round."""
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in bench.engines}
    for turn in range(1, bench.rounds + 1):
        for engine in bench.engines:
            if engine in bench.failures:
                continue
            trial = bench.trial(
                bench.size.step_fanout, engine=engine, batch_size=bench.size.step_batch
            )
            steps = bench.steps or STEPS.get(engine, 2)
            try:
                result = bench.work("step", trial, warm=1, steps=steps)
            except MeasurementFailed as error:
                bench.failures[engine] = str(error)
                yield f"{engine}: FAILED: {error}"
                continue
            found[engine].append(result)
            yield (
                f"round {turn}: {engine:18} {median(result['step_s']):8.3f} s"
                f"  {result['peak_bytes'] / 1e9:6.2f} GB"
            )
    found = {engine: results for engine, results in found.items() if results}
    bench.details["step"] = {engine: _step_summary(results) for engine, results in found.items()}
    if "blocks" in found:
        _compare(bench, found)


def _compare(bench: Bench, found: dict[str, list[dict[str, Any]]]) -> None:
    """The ratios of the other engines to `blocks`. found: the results of each, one a round."""
    times = {e: [result["step_s"] for result in results] for e, results in found.items()}
    memory = {e: [[result["peak_bytes"]] for result in results] for e, results in found.items()}
    candidates = [engine for engine in BEST_PYG if engine in found]
    best = min(candidates, key=lambda engine: median(flat(times[engine])), default=None)
    bench.details["best_pyg"] = best
    for label, engine in (
        ("reference", "reference"),
        ("trimmed", "trimmed"),
        ("best_pyg", best),
        ("bipartite_csr", "bipartite_csr"),
    ):
        if engine not in found:
            continue
        bench.figures[f"blocks_vs_{label}_time_ratio"] = ratio(times[engine], times["blocks"])
        whole, ours = ([_whole_steps(r) for r in found[e]] for e in (engine, "blocks"))
        bench.details[f"blocks_vs_{label}_with_sampling_time_ratio"] = ratio(whole, ours).value
        if label != "bipartite_csr":
            bench.figures[f"blocks_vs_{label}_memory_ratio"] = ratio(
                memory[engine], memory["blocks"]
            )


def _whole_steps(result: dict[str, Any]) -> list[float]:
    """Seconds of each step, with its sampling and loading."""
    parts = (result["sampling_s"], result["data_s"], result["step_s"])
    return [sum(phases) for phases in zip(*parts, strict=True)]


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
    trial = bench.trial(bench.size.fanout, batch_size=bench.size.batch)
    for turn in range(1, bench.rounds + 1):
        for relabel in (True, False):
            for threads in (1, 2):
                given = {"threads": threads, "relabel_last": relabel}
                result = bench.work("sampler", trial, warm=2, steps=bench.steps or 8, **given)
                found = result["edges_per_s"]
                rates.setdefault((relabel, threads), []).append(found)
                yield (
                    f"round {turn}: {threads} thread{'s' * (threads > 1)}, last hop "
                    f"{'relabelled' if relabel else 'not relabelled'}: {median(found) / 1e6:.1f} M "
                    "edges/s"
                )
    for relabel, suffix in ((True, ""), (False, "_as_blocks_uses_it")):
        one, two = rates[relabel, 1], rates[relabel, 2]
        bench.figures["sampler_edges_per_s" + suffix] = figure(flat(one))
        bench.figures["sampler_two_thread_ratio" + suffix] = ratio(two, one)


ROWS: dict[str, tuple[Callable[[Bench], Iterator[str]], tuple[str, ...]]] = {
    "step": (
        step,
        (
            "blocks_vs_reference_time_ratio",
            "blocks_vs_reference_memory_ratio",
            "blocks_vs_trimmed_time_ratio",
            "blocks_vs_best_pyg_time_ratio",
        ),
    ),
    "sampler": (sampler, ("sampler_edges_per_s", "sampler_two_thread_ratio")),
}
"""name -> (what runs it, the keys that it owes)"""
