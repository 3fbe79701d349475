"""Output of the benchmark: a table, and one line of JSON."""

from __future__ import annotations

import json

import torch

from sagebench.bench.rows import TARGETS, Bench, Figure
from sagebench.measure import machine
from sagebench.units import significant, text_table

DISTURBED_CORES = 0.15
"""from here on other work on the machine is worth a warning"""


def table(bench: Bench) -> str:
    """A line a figure: value, range over the rounds, and for the whole graph the target."""
    targets = TARGETS if bench.size.scale == 1 else {}
    head = ("", "median", "range", "", *(["target"] if targets else []))
    names = sorted(bench.figures, key=lambda name: name not in TARGETS)
    cells = [_cells(name, bench.figures[name], targets.get(name))[: len(head)] for name in names]
    lines = text_table(head, cells, left=(0, 3, 4))
    for name, others in bench.others_cores.items():
        disturbed = sum(cores > DISTURBED_CORES for cores in others)
        if disturbed:
            lines.append(
                f"! {name}: other work kept up to {max(others)} cores busy during {disturbed} of "
                f"{len(others)} measurements; repeat it alone"
            )
    lines += [f"! {name} FAILED: {message}" for name, message in bench.failures.items()]
    return "\n".join(lines)


def _cells(name: str, found: Figure, target: float | None) -> tuple[str, ...]:
    scale, unit = (1e6, "M edges/s") if "edges_per_s" in name else (1, "x")
    value, low, high = (significant(number / scale) for number in found)
    reached = ""
    if target is not None:
        met = "met" if found.value >= target else "NOT MET"
        reached = f">= {significant(target / scale)} {met}"
    return name, value, f"{low} - {high}", unit, reached


def json_line(bench: Bench, size: str) -> str:
    """One object on one line: the keys with targets, null where not run; then everything."""
    device = torch.device(bench.device, 0)
    return json.dumps(
        {
            **dict.fromkeys(TARGETS),
            **{name: found.value for name, found in bench.figures.items()},
            "spread": {name: [found.low, found.high] for name, found in bench.figures.items()},
            "failures": bench.failures,
            "others_cores": bench.others_cores,
            "size": size,
            "device": bench.device,
            "threads": bench.threads,
            "rounds": bench.rounds,
            "machine": {**machine.collect_cpu(), **machine.collect_device(device)},
            "versions": machine.collect_versions(),
            "details": bench.details,
        },
        allow_nan=False,
    )
