"""Rows of the benchmark: what is compared at which size, and the resulting figures.

An engine that trials may have is compared without a line about it here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from sagebench import registry
from sagebench.grid.trial import Trial
from sagebench.launch.container import ROOT
from sagebench.launch.ends import RankEnd, ending
from sagebench.launch.ranks import local_environment, shared_environment

SCRIPTS = ROOT / "workflow_scripts"

BIPARTITE = "bipartite_csr"
"""beyond PyG's trimming: written out by hand, a layer computes only the rows that are read"""

BEST_PYG = ("trimmed_csr", "trimmed_edge_index")
"""nodes and edges as `trim_to_layer` leaves them, on PyG's fused kernels; the faster is best_pyg"""

PEERS = (BIPARTITE, *BEST_PYG)
"""made by sagebench.bench.worker"""

ENGINES = tuple(dict.fromkeys(("blocks", *PEERS, *registry.names("engine"))))
"""in the order in which they take turns: the peers, and every engine that a trial may have"""

STEPS = {"blocks": 5, "reference": 1}
"""timed steps of a process; of the other engines 2. `reference` takes 20 s a step on two cores"""
SAMPLER_STEPS = 8
PHASES = ("step_s", "sampling_s", "data_s")

Rounds = Sequence[Sequence[float]]
"""what was measured in each round, one value a repeat"""


class Size(NamedTuple):
    """scale: share of ogbn-products' nodes. step_fanout: where the engines are compared."""

    scale: float
    hidden_channels: int
    batch_size: int
    step_fanout: tuple[int, ...]
    sampler_fanout: tuple[int, ...]

    @property
    def dataset(self) -> dict[str, Any]:
        """The made graph that is measured on."""
        return {"name": "bench", "source": "synthetic", "scale": self.scale}


SIZES = {
    "tiny": Size(0.001, 16, 8, (3, 3, 2), (4, 3, 2)),
    "laptop": Size(0.1, 256, 32, (5, 5, 5, 5, 5), (15, 10, 10, 10, 10)),
    "products": Size(1, 256, 128, (5, 5, 5, 5, 5), (15, 10, 10, 10, 10)),
}
"""`tiny` is for tests, `laptop` for 8 GB of memory, `products` is what targets are given for"""


class Figure(NamedTuple):
    """A measured value and the range that its repeats span."""

    value: float
    low: float
    high: float


class MeasurementFailed(Exception):
    """A process ended without a result; the message says how."""


def run_worker(
    job: str, trial: dict[str, Any], store: Path, steps: int
) -> tuple[dict[str, Any], float]:
    """Run a job of `worker.py` with the environment of a trial's only rank.

    Returns its result, and how many cores anything else kept busy meanwhile.
    """
    arguments = json.dumps({"job": job, "trial": trial, "store": str(store), "steps": steps})
    whole = Trial.from_json(trial)
    environment = {
        **os.environ,
        **shared_environment(whole.device, whole.threads_per_rank, Path(), time.time()),
        **local_environment(ranks=1, rank=0),
        "PYTHONPATH": str(SCRIPTS),
    }
    command = [sys.executable, "-m", "sagebench.bench.worker", arguments]
    busy, start = others_busy_s(), time.monotonic()
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace",
    )  # fmt: skip
    if done.returncode:
        raise MeasurementFailed(ending(RankEnd(0, done.returncode, 0, done.stderr)))
    others_cores = (others_busy_s() - busy) / (time.monotonic() - start)
    return json.loads(done.stdout.splitlines()[-1]), round(max(others_cores, 0.0), 2)


def others_busy_s() -> float:
    """CPU seconds that this machine has spent since it started, over all cores, on anything but
    the processes that this one has started and waited for."""
    machine, own = psutil.cpu_times(), os.times()
    busy = machine.user + machine.nice + machine.system + machine.irq + machine.softirq
    return busy + machine.steal - own.children_user - own.children_system


@dataclass
class Bench:
    """Set-up of the measurements, and their results. steps: of a process; None: by the row."""

    size: Size
    store: Path
    dataset: dict[str, Any]
    device: str
    threads: int
    rounds: int
    engines: Sequence[str] = ENGINES
    steps: int | None = None
    say: Callable[[str], None] = print
    figures: dict[str, Figure] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    others_cores: dict[str, list[float]] = field(default_factory=dict)

    def trial(self, fanout: Sequence[int], engine: str = "blocks") -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "engine": engine,
            "layers": len(fanout),
            "hidden_channels": self.size.hidden_channels,
            "batch_size": self.size.batch_size,
            "accumulation": 1,
            "fanout": list(fanout),
            "threads_per_rank": self.threads,
            "device": self.device,
            "kernels": "plain" if engine in PEERS else "auto",
            "machine": "bench",
        }

    def measure(
        self,
        job: str,
        cases: Mapping[str, tuple[dict[str, Any], int]],
        shown: Callable[[dict[str, Any]], str],
        rounds: int | None = None,
    ) -> dict[str, dict[str, list[Any]]]:
        """Run a job of `worker.py` once a case and round; a case that fails is left out from then
        on.

        cases: trial and timed steps, by name. Returns the results of each by name, one a round.
        """
        found: dict[str, dict[str, list[Any]]] = {}
        for turn in range(1, (rounds or self.rounds) + 1):
            for name in [name for name in cases if name not in self.failures]:
                trial, steps = cases[name]
                try:
                    result, others_cores = run_worker(job, trial, self.store, self.steps or steps)
                except MeasurementFailed as error:
                    self.failures[name] = str(error)
                    self.say(f"{name}: FAILED: {error}")
                    continue
                self.others_cores.setdefault(job, []).append(others_cores)
                of_case = found.setdefault(name, {key: [] for key in result})
                for key, value in result.items():
                    of_case[key].append(value)
                self.say(f"round {turn}: {name:18} {shown(result)}")
        return found


def step(bench: Bench) -> None:
    """One optimizer step of every engine on the same samples, round after round."""
    fanout = bench.size.step_fanout
    found = bench.measure(
        "step",
        {name: (bench.trial(fanout, name), STEPS.get(name, 2)) for name in bench.engines},
        seconds_and_bytes,
    )
    details = bench.details
    details["step"] = {engine: summary(results) for engine, results in found.items()}
    fast = {engine: details["step"][engine]["step_s"] for engine in BEST_PYG if engine in found}
    details["best_pyg"] = min(fast, key=lambda engine: fast[engine]["value"], default=None)
    rivals = {engine: engine for engine in found if engine not in ("blocks", *BEST_PYG)}
    if fast:
        rivals["best_pyg"] = details["best_pyg"]
    for name, engine in rivals.items() if "blocks" in found else ():
        pair = found[engine], found["blocks"]
        for key, value in (("time", "step_s"), ("memory", "peak_bytes")):
            compared = ratio(*(results[value] for results in pair))
            bench.figures[f"blocks_vs_{name}_{key}_ratio"] = compared
        whole = ratio(*map(whole_steps_s, pair))
        details[f"blocks_vs_{name}_with_sampling_time_ratio"] = whole.value


def exact_last_hop(bench: Bench) -> None:
    """`blocks` with a last hop that is read from a table of aggregated features, against the fanout
    that samples it; and how long the table takes."""
    sampled = bench.size.sampler_fanout
    exact = (*sampled[:-1], -1)
    table = bench.measure(
        "table",
        {"table": (bench.trial(exact), 1)},
        lambda result: f"{result['table_s'][0]:8.1f} s {result['peak_bytes'][0] / 1e9:7.2f} GB",
    )
    if not table:
        return
    bench.figures["aggregate_table_s"] = figure(table["table"]["table_s"])
    cases = {str(list(fanout)): (bench.trial(fanout), 3) for fanout in (sampled, exact)}
    found = bench.measure("step", cases, seconds_and_bytes)
    bench.details["exact_last_hop"] = {
        "table_peak_bytes": figure(table["table"]["peak_bytes"]).high,
        **{fanout: summary(results) for fanout, results in found.items()},
    }
    if len(found) == len(cases):
        pair = found.values()
        for name, values in (
            ("sampling", (results["sampling_s"] for results in pair)),
            ("time", map(whole_steps_s, pair)),
            ("memory", (results["peak_bytes"] for results in pair)),
        ):
            bench.figures[f"exact_last_hop_{name}_ratio"] = ratio(*values)


def launches(bench: Bench) -> None:
    """Kernels that a GPU launches for a sample and its micro-step, `blocks` in bf16, and the bytes
    that they move, as if no cache held any: counted, without a GPU."""
    trial = {**bench.trial(bench.size.sampler_fanout), "device": "cuda", "precision": "bf16"}
    found = bench.measure(
        "launches",
        {"launches": (trial, 1)},
        lambda result: f"{result['launches']:8} {result['bytes'] / 1e9:7.2f} GB",
        rounds=1,
    )
    bench.others_cores.pop("launches", None)  # nothing is timed
    if found:
        counted = {name: values[0] for name, values in found["launches"].items()}
        bench.figures["launches_per_step"] = figure([[counted["launches"]]])
        bench.figures["step_bytes"] = figure([[counted["bytes"]]])
        bench.details["launches"] = counted


def summary(results: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Of one case of the job `step`."""
    return {
        **{name: figure(results[name])._asdict() for name in (*PHASES, "peak_bytes")},
        "host_bytes": max(results["host_bytes"]),
        "processes": len(results["host_bytes"]),
    }


def seconds_and_bytes(result: dict[str, Any]) -> str:
    return f"{median(result['step_s']):8.3f} s {result['peak_bytes'][0] / 1e9:7.2f} GB"


def whole_steps_s(results: Mapping[str, Rounds]) -> Rounds:
    """The sum of all phases, of every repeat in each round."""
    of_rounds = zip(*(results[name] for name in PHASES), strict=True)
    return [[sum(phases) for phases in zip(*times, strict=True)] for times in of_rounds]


def sampler(bench: Bench) -> None:
    """The CPU sampler alone: edges a second, with the last hop relabelled and without."""
    found = bench.measure(
        "sampler",
        {"sampler": (bench.trial(bench.size.sampler_fanout), SAMPLER_STEPS)},
        lambda result: f"{median(result['edges_per_s'][0]) / 1e6:8.1f} M edges/s on one thread",
    )
    for suffix in ("", "_as_blocks_uses_it") if found else ():
        one, two = zip(*found["sampler"]["edges_per_s" + suffix], strict=True)
        bench.figures["sampler_edges_per_s" + suffix] = figure(one)
        bench.figures["sampler_two_thread_ratio" + suffix] = ratio(two, one)


def skipgram(bench: Bench) -> None:
    """Skip-gram with negative sampling beside gensim's, on the same walks: pairs a second, and the
    accuracy of a logistic regression on the vectors of a small graph."""
    if not find_spec("gensim"):
        bench.say(
            "gensim is missing, so nothing stands beside skipgram: "
            f"{sys.executable} -m pip install -r envs/bench.txt"
        )
    found = bench.measure(
        "skipgram",
        {"skipgram": (bench.trial(bench.size.step_fanout), 1)},
        lambda result: f"{median(result['pairs_per_s']) / 1e6:8.1f} M pairs/s",
    ).get("skipgram")
    if not found:
        return
    bench.details["skipgram"] = found
    bench.figures["skipgram_pairs_per_s"] = figure(found["pairs_per_s"])
    if "gensim_pairs_per_s" in found:
        rates = found["pairs_per_s"], found["gensim_pairs_per_s"]
        bench.figures["gensim_pairs_per_s"] = figure(rates[1])
        bench.figures["skipgram_vs_gensim_ratio"] = ratio(*rates)
    if "gensim_accuracy" in found:
        rounds = zip(found["accuracy"], found["gensim_accuracy"], strict=True)
        bench.figures["skipgram_minus_gensim_accuracy"] = figure(
            [[ours - theirs for ours, theirs in zip(*pair, strict=True)] for pair in rounds]
        )


ROWS = {row.__name__: row for row in (step, sampler, exact_last_hop, launches, skipgram)}

TARGETS = {
    "blocks_vs_reference_time_ratio": 25,
    "blocks_vs_reference_memory_ratio": 4,
    "blocks_vs_trimmed_time_ratio": 5,
    "blocks_vs_best_pyg_time_ratio": 3,
    "sampler_edges_per_s": 12e6,
    "sampler_two_thread_ratio": 1.7,
    "exact_last_hop_sampling_ratio": 2,
    "exact_last_hop_time_ratio": 1,
    "exact_last_hop_memory_ratio": 1,
    "skipgram_vs_gensim_ratio": 1,
}
"""what is to be reached at size `products` on two cores"""

LIMITS = {"aggregate_table_s": 60, "launches_per_step": 250, "step_bytes": 11e9}
"""what is not to be exceeded there"""


def figure(rounds: Rounds) -> Figure:
    """Median and range of all repeats."""
    repeats = [value for values in rounds for value in values]
    return Figure(median(repeats), min(repeats), max(repeats))


def ratio(numerators: Rounds, denominators: Rounds) -> Figure:
    """Median over median of all repeats, and the range of the same ratio within the rounds that
    both have."""
    pairs = zip(numerators, denominators, strict=False)
    of_rounds = [median(above) / median(below) for above, below in pairs]
    whole = figure(numerators).value / figure(denominators).value
    return Figure(whole, min(of_rounds), max(of_rounds))
