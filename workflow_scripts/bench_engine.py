"""Measure the engines and the sampler side by side, each in processes of its own, round after
round.

Every process has the same threads and the same allocator settings, every engine the same seeds,
samples, dropout and fp32. The step that ratios compare is forward, backward and optimizer on a
sample that is drawn and loaded already; ratios that include those are among the details.
Exit code 1: a row failed, or was not measured whole; the message and the JSON say which.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sagebench.bench.processes import SCRIPTS, MeasurementFailed
from sagebench.bench.rows import ROWS, Bench
from sagebench.bench.setting import ENGINES, SIZES
from sagebench.bench.table import json_line, table
from sagebench.errors import UserError, run_script, script_parser
from sagebench.graph.store import MANIFEST, GraphStore
from sagebench.grid.trial import store_name


def main() -> int:
    arguments = parse_arguments()
    size = SIZES[arguments.size]
    rows = [name for name in ROWS if name in arguments.only]
    start = time.monotonic()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - start), 60)
        print(f"{minutes:3}:{seconds:02}  {text}", file=sys.stderr, flush=True)

    if arguments.store is None:
        say(f"the graph: {size.scale:g} of ogbn-products' size")
    store = GraphStore.open(arguments.store or prepare_store(size.dataset, arguments.stores))
    bench = Bench(
        size=size,
        store=store.path.resolve(),
        dataset=store.manifest["source"],
        device=arguments.device,
        threads=arguments.threads,
        rounds=arguments.rounds,
        engines=tuple(arguments.engines),
        steps=arguments.steps,
    )
    for name in rows:
        row, _ = ROWS[name]
        say(f"{name}: {row.__doc__.splitlines()[0]}")
        try:
            for line in row(bench):
                say(f"  {line}")
        except MeasurementFailed as error:
            bench.failures[name] = str(error)
            say(f"  FAILED: {error}")
    print(table(bench))
    if arguments.json:
        print(json_line(bench, arguments.size))
    owed = {key for name in rows for key in ROWS[name][1]}
    all_engines = set(arguments.engines) == set(ENGINES)
    return int(bool(bench.failures) or (all_engines and not owed <= bench.figures.keys()))


def prepare_store(dataset: dict[str, Any], stores: Path) -> Path:
    """The store of `dataset` in the folder `stores`; built if it is not there."""
    folder = stores / store_name(dataset)
    if not (folder / MANIFEST).exists():
        # In a process of its own: building takes gigabytes that would stay with this one.
        command = [sys.executable, str(SCRIPTS / "build_graph.py")]
        command += ["--spec", json.dumps(dataset), "--out", str(folder)]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            raise UserError(f"the benchmark's graph could not be built in {folder}: see above")
    return folder


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--size", choices=list(SIZES), default="products", help="default: %(default)s"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(ROWS), default=list(ROWS), help="run these rows only"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object on one line")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a process (%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="processes of each measurement (%(default)s)"
    )
    parser.add_argument("--steps", type=int, help="timed steps of a process (default: by the row)")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=ENGINES,
        metavar="NAME",
        help=f"what the row `step` compares (all: {', '.join(ENGINES)})",
    )
    parser.add_argument("--store", type=Path, help="measure on this store, not on a synthetic one")
    parser.add_argument(
        "--stores",
        type=Path,
        default=Path("results/stores"),
        help="folder for the synthetic graph, made there once (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
