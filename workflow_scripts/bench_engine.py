"""Benchmark the engines, the CPU sampler and skip-gram, each in its own processes, in alternating
round.

Every process has the same threads and the same allocator settings, every engine the same seeds,
samples, dropout and fp32. The step that ratios compare is forward, backward and optimizer on a
sample that is drawn and loaded already; ratios that include those are among the details.
Exit code 1: something failed; the message and the JSON say what.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sagebench.bench.rows import ENGINES, LIMITS, ROWS, SCRIPTS, SIZES, TARGETS, Bench, Figure
from sagebench.errors import UserError, run_script, script_parser
from sagebench.graph.store import MANIFEST, GraphStore
from sagebench.grid.trial import store_name
from sagebench.measure import machine
from sagebench.units import significant, text_table

STORES = Path("results/stores")
"""where the synthetic graph is made, once"""
DISTURBED_CORES = 0.15
"""from here on other work on the machine is worth a warning"""


def main() -> int:
    arguments = parse_arguments()
    size = SIZES[arguments.size]
    start = time.monotonic()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - start), 60)
        print(f"{minutes:3}:{seconds:02}  {text}", file=sys.stderr, flush=True)

    if arguments.store is None:
        say(f"the graph: {size.scale:g} of ogbn-products' size")
    store = GraphStore.open(arguments.store or prepare_store(size.dataset))
    bench = Bench(
        size=size,
        store=store.path.resolve(),
        dataset=store.manifest["source"],
        device=arguments.device,
        threads=arguments.threads,
        rounds=arguments.rounds,
        engines=tuple(arguments.engines),
        steps=arguments.steps,
        say=lambda text: say(f"  {text}"),
    )
    for name, row in ROWS.items():
        if name in arguments.only:
            say(f"{name}: {row.__doc__}")
            row(bench)
    print(table(bench))
    if arguments.json:
        print(json_line(bench, arguments.size))
    return int(bool(bench.failures))


def prepare_store(dataset: dict[str, Any]) -> Path:
    """Graph store of `dataset`, built if missing."""
    folder = STORES / store_name(dataset)
    if not (folder / MANIFEST).exists():
        # In a process of its own: building takes gigabytes that would stay with this one.
        command = [sys.executable, str(SCRIPTS / "build_graph.py")]
        command += ["--spec", json.dumps(dataset), "--out", str(folder)]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            raise UserError(f"the benchmark's graph could not be built in {folder}: see above")
    return folder


def table(bench: Bench) -> str:
    """A line a figure: value, range over the rounds, and for the whole graph the target."""
    with_targets = bench.size.scale == 1
    head = ("", "median", "range", "", *(["target"] if with_targets else []))
    names = sorted(bench.figures, key=lambda name: name not in TARGETS | LIMITS)
    cells = [_cells(name, bench.figures[name])[: len(head)] for name in names]
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


UNITS: dict[str, tuple[float, str]] = {
    "edges_per_s": (1e6, "M edges/s"),
    "pairs_per_s": (1e6, "M pairs/s"),
    "_accuracy": (1, ""),
    "_ratio": (1, "x"),
    "launches": (1, ""),
    "_bytes": (1e9, "GB"),
    "_s": (1, "s"),
}
"""scale and unit of the figures with this in their name, the first that fits"""


def _cells(name: str, found: Figure) -> tuple[str, ...]:
    scale, unit = next(UNITS[part] for part in UNITS if part in name)
    value, low, high = (significant(number / scale) for number in found)
    reached = ""
    for sign, goals in ((">=", TARGETS), ("<=", LIMITS)):
        if name in goals:
            met = found.value >= goals[name] if sign == ">=" else found.value <= goals[name]
            reached = f"{sign} {significant(goals[name] / scale)} {'met' if met else 'NOT MET'}"
    return name, value, f"{low} - {high}", unit, reached


def json_line(bench: Bench, size: str) -> str:
    """One object on one line: the keys with targets, null where not run; then everything."""
    device = torch.device(bench.device, 0)
    return json.dumps(
        {
            **dict.fromkeys([*TARGETS, *LIMITS]),
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


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__)
    option = parser.add_argument
    option("--size", choices=list(SIZES), default="products", help="default: %(default)s")
    option("--only", nargs="+", choices=list(ROWS), default=list(ROWS), help="run these rows only")
    option("--json", action="store_true", help="end with one JSON object on one line")
    option("--device", choices=["cpu", "cuda"], default="cpu")
    option("--threads", type=int, default=2, help="of a process (%(default)s)")
    option("--rounds", type=int, default=3, help="processes of each measurement (%(default)s)")
    option("--steps", type=int, help="timed steps of a process (default: by the row)")
    option("--store", type=Path, help="measure on this store, not on a synthetic one")
    of_step = f"what the row `step` compares (all: {', '.join(ENGINES)})"
    option("--engines", nargs="+", choices=ENGINES, default=ENGINES, metavar="NAME", help=of_step)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
