"""What the benchmark says: a table for people, one line of JSON for tools."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from sagebench.bench.figures import Figure
from sagebench.bench.rows import KEYS, Bench


class Target(NamedTuple):
    """bound: what a figure is to reach, at least or at most. Given for size `products`, two cores.

    scale and unit: how people read the figure.
    """

    bound: float
    at_least: bool
    scale: float
    unit: str


TARGETS = {
    "blocks_vs_reference_time_ratio": Target(25, True, 1, "x"),
    "blocks_vs_reference_memory_ratio": Target(4, True, 1, "x"),
    "blocks_vs_trimmed_time_ratio": Target(5, True, 1, "x"),
    "blocks_vs_best_pyg_time_ratio": Target(3, True, 1, "x"),
    "sampler_edges_per_s": Target(12e6, True, 1e6, "M edges/s"),
    "sampler_two_thread_ratio": Target(1.7, True, 1, "x"),
    "batch512_host_bytes": Target(12e9, False, 1e9, "GB"),
    "two_rank_ratio": Target(1.9, True, 1, "x"),
    "sampling_wait_share": Target(0.1, False, 0.01, "%"),
    "trial_start_s": Target(5, False, 1, "s"),
    "evaluation_s": Target(240, False, 1, "s"),
    "evaluation_host_bytes": Target(10e9, False, 1e9, "GB"),
}
MORE = {
    "blocks_vs_bipartite_csr_time_ratio": "blocks_vs_best_pyg_time_ratio",
    "blocks_vs_trimmed_memory_ratio": "blocks_vs_reference_memory_ratio",
    "blocks_vs_best_pyg_memory_ratio": "blocks_vs_reference_memory_ratio",
    "sampler_edges_per_s_as_blocks_uses_it": "sampler_edges_per_s",
    "sampler_two_thread_ratio_as_blocks_uses_it": "sampler_two_thread_ratio",
    "two_rank_ratio_sampling_in_background": "two_rank_ratio",
}
"""figures without a target of their own, and whose unit they share"""

DISTURBED_CORES = 0.15
"""from here on other work on the machine is worth a warning"""


def table(bench: Bench) -> str:
    """A line a figure: value, range over the rounds, target; what was not run is left out."""
    with_targets = bench.size.scale == 1
    lines = [f"{'':44}{'median':>9}  {'range':>17}  {'':9}" + "  target" * with_targets]
    for name in (*KEYS, *MORE):
        if name in bench.figures:
            lines.append(_line(name, bench.figures[name], with_targets and name in TARGETS))
    for name, others in bench.others_cores.items():
        disturbed = sum(cores > DISTURBED_CORES for cores in others)
        if disturbed:
            lines.append(
                f"! {name}: other work kept up to {max(others)} cores busy during {disturbed} of "
                f"{len(others)} measurements; repeat it alone"
            )
    lines += [f"! {name} FAILED: {message}" for name, message in bench.failures.items()]
    lines += [f"! {name} left out: {reason}" for name, reason in bench.left_out.items()]
    return "\n".join(line.rstrip() for line in lines)


def _line(name: str, found: Figure, with_target: bool) -> str:
    target = TARGETS[MORE.get(name, name)]
    value, low, high, bound = (_short(number / target.scale) for number in (*found, target.bound))
    line = f"{name:44}{value:>9}  {low:>7} - {high:>7}  {target.unit:9}"
    if not with_target:
        return line
    met = found.value >= target.bound if target.at_least else found.value <= target.bound
    sign = ">=" if target.at_least else "<="
    return f"{line}  {sign} {bound:5} {'met' if met else 'NOT MET'}"


def _short(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 100 else f"{number:.0f}"


def json_line(bench: Bench, about: dict[str, Any]) -> str:
    """One object on one line: the keys of KEYS in order, null where not run; then everything."""
    values = {name: _value(bench.figures.get(name)) for name in KEYS}
    more = {name: found.value for name, found in bench.figures.items() if name not in KEYS}
    spread = {name: [found.low, found.high] for name, found in bench.figures.items()}
    return json.dumps(
        {
            **values,
            **more,
            "spread": spread,
            "failures": bench.failures,
            "left_out": bench.left_out,
            "others_cores": bench.others_cores,
            **about,
            "details": bench.details,
        },
        allow_nan=False,
    )


def _value(found: Figure | None) -> float | None:
    return None if found is None else found.value


def about(bench: Bench, size: str) -> dict[str, Any]:
    """What was run, where, with which versions."""
    from sagebench.measure import machine

    return {
        "size": size,
        "device": bench.device,
        "threads": bench.threads,
        "rounds": bench.rounds,
        "machine": {**machine.collect_cpu(), **_gpu(bench.device)},
        "versions": machine.collect_versions(),
    }


def _gpu(device: str) -> dict[str, Any]:
    if device != "cuda":
        return {}
    import torch

    from sagebench.measure import machine

    return machine.collect_device(torch.device("cuda", 0))


def missing(bench: Bench, owed: Iterator[str]) -> list[str]:
    """The keys that the rows which were run have not filled."""
    return [key for key in owed if key not in bench.figures]


def disturbance(others: list[float]) -> str:
    """What to say of the last measurement's company; nothing where it was alone."""
    if not others or others[-1] <= DISTURBED_CORES:
        return ""
    return f"   (other work: {others[-1]} cores)"


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"
