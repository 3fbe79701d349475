"""What the benchmark says: a table for people, one line of JSON for tools."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sagebench.bench.figures import Figure
from sagebench.bench.rows import ROWS, Bench


class Shown(NamedTuple):
    """How people read a figure, and what it is to reach at size `products` on two cores."""

    scale: float = 1
    unit: str = "x"
    target: float | None = None


SHOWN = {
    "blocks_vs_reference_time_ratio": Shown(target=25),
    "blocks_vs_reference_memory_ratio": Shown(target=4),
    "blocks_vs_trimmed_time_ratio": Shown(target=5),
    "blocks_vs_best_pyg_time_ratio": Shown(target=3),
    "sampler_edges_per_s": Shown(1e6, "M edges/s", 12e6),
    "sampler_two_thread_ratio": Shown(target=1.7),
    "blocks_vs_bipartite_csr_time_ratio": Shown(),
    "blocks_vs_trimmed_memory_ratio": Shown(),
    "blocks_vs_best_pyg_memory_ratio": Shown(),
    "sampler_edges_per_s_as_blocks_uses_it": Shown(1e6, "M edges/s"),
    "sampler_two_thread_ratio_as_blocks_uses_it": Shown(),
}

DISTURBED_CORES = 0.15
"""from here on other work on the machine is worth a warning"""


def table(bench: Bench) -> str:
    """A line a figure: value, range over the rounds, target; what was not run is left out."""
    with_targets = bench.size.scale == 1
    lines = [f"{'':44}{'median':>9}  {'range':>17}  {'':9}" + "  target" * with_targets]
    for name, shown in SHOWN.items():
        if name in bench.figures:
            lines.append(_line(name, bench.figures[name], shown, with_targets))
    for name, others in bench.others_cores.items():
        disturbed = sum(cores > DISTURBED_CORES for cores in others)
        if disturbed:
            lines.append(
                f"! {name}: other work kept up to {max(others)} cores busy during {disturbed} of "
                f"{len(others)} measurements; repeat it alone"
            )
    lines += [f"! {name} FAILED: {message}" for name, message in bench.failures.items()]
    return "\n".join(line.rstrip() for line in lines)


def _line(name: str, found: Figure, shown: Shown, with_target: bool) -> str:
    value, low, high = (_short(number / shown.scale) for number in found)
    line = f"{name:44}{value:>9}  {low:>7} - {high:>7}  {shown.unit:9}"
    if not with_target or shown.target is None:
        return line
    met = "met" if found.value >= shown.target else "NOT MET"
    return f"{line}  >= {_short(shown.target / shown.scale):5} {met}"


def _short(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 100 else f"{number:.0f}"


def json_line(bench: Bench, size: str) -> str:
    """One object on one line: every row's keys in order, null where not run; then everything."""
    values = {key: None for _, keys in ROWS.values() for key in keys}
    values |= {name: found.value for name, found in bench.figures.items()}
    spread = {name: [found.low, found.high] for name, found in bench.figures.items()}
    return json.dumps(
        {
            **values,
            "spread": spread,
            "failures": bench.failures,
            "others_cores": bench.others_cores,
            "size": size,
            "device": bench.device,
            "threads": bench.threads,
            "rounds": bench.rounds,
            **_machine(bench.device),
            "details": bench.details,
        },
        allow_nan=False,
    )


def _machine(device: str) -> dict[str, Any]:
    """Where it was run, with which versions."""
    import torch

    from sagebench.measure import machine

    gpu = machine.collect_device(torch.device("cuda", 0)) if device == "cuda" else {}
    return {
        "machine": {**machine.collect_cpu(), **gpu},
        "versions": machine.collect_versions(),
    }
