"""Run trials on this CPU and compare their peak memory with what is predicted for them.

From graphs of 10^4 nodes to the size of ogbn-products, both engines. The model's constants were
fixed on other configurations; nothing is fitted here. Exit code 1: an error is beyond the bounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagebench.bench.processes import run_trial
from sagebench.bench.stores import dataset_of, prepare_store, short_store
from sagebench.errors import run_script
from sagebench.files import write_json
from sagebench.graph.store import GraphStore
from sagebench.grid.trial import Trial
from sagebench.predict.memory import peak_memory
from sagebench.predict.probe import probe_store
from sagebench.units import MIB

MEDIAN_ERROR, WORST_ERROR = 0.08, 0.20
STEPS = 10  # of a trial, on graphs that have more


@dataclass(frozen=True)
class Case:
    """A trial: on which graph, what it samples."""

    scale: float
    engine: str
    fanout: tuple[int, ...]
    batch_size: int
    hidden_channels: int = 256
    ranks: int = 1


CASES = tuple(
    Case(scale, engine, fanout, batch_size)
    for scale, samples in {
        0.004: (((5, 5), 32), ((10, 10, 5), 64), ((15, 10, 10, 10, 10), 32)),
        0.04: (((10, 5), 128), ((10, 10, 5), 64), ((15, 10, 5, 5), 128)),
        1: (((15, 10, 5), 64), ((5, 5, 5, 5, 5), 32), ((15, 10, 10, 5), 64)),
    }.items()
    for fanout, batch_size in samples
    for engine in ("blocks", "reference")
)


def main() -> int:
    arguments = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory(prefix="sagebench-") as folder:
        for case in CASES:
            if case.scale in arguments.scales:
                row = compare(case, arguments.stores, Path(folder, str(len(rows))))
                rows.append(row)
                print(line(row), flush=True)
    errors = [abs(row["error"]) for row in rows]
    median, worst = statistics.median(errors), max(errors)
    print(f"median error {median:.1%}, worst {worst:.1%} of {len(rows)} trials")
    if arguments.json:
        write_json(arguments.json, rows)
    return int(median > MEDIAN_ERROR or worst > WORST_ERROR)


def compare(case: Case, stores: Path, folder: Path) -> dict[str, Any]:
    """Run the case's trial once; its measured and its predicted peak, in bytes."""
    dataset = {"name": "bench", "source": "synthetic", "scale": case.scale}
    store = prepare_store(dataset, stores).resolve()
    if case.scale > 0.01:
        train = STEPS * case.batch_size
        store = short_store(store, folder / "store", train=train, others=case.batch_size)
    trial = Trial.from_json(
        {
            "dataset": dataset_of(store),
            "engine": case.engine,
            "layers": len(case.fanout),
            "fanout": case.fanout,
            "batch_size": case.batch_size,
            "hidden_channels": case.hidden_channels,
            "ranks": case.ranks,
            "accumulation": 1,
            "epochs": 2,
            "threads_per_rank": 2,
            "evaluate_every_epochs": 2,
            "phase_window_steps": 0,
            "device": "cpu",
            "machine": "check",
        }
    )
    requests = [(trial.fanout, trial.batch_size)]
    probe = probe_store(GraphStore.open(store), requests, folder / "probe.json", threads=2)
    sample = probe.sample_of(trial)
    assert sample is not None
    predicted = peak_memory(trial, sample, probe.graph)
    outcome = run_trial(trial.to_json(), store, folder / "trial").result
    measured = outcome["memory"]["peak_host_private_bytes"]
    return {
        "nodes": probe.graph.num_nodes,
        "engine": case.engine,
        "fanout": list(case.fanout),
        "batch_size": case.batch_size,
        "measured_bytes": measured,
        "before_bytes": outcome["ranks"][0]["host_private_before_training_bytes"],
        "predicted_bytes": predicted.peak_bytes,
        "low_bytes": predicted.low_bytes,
        "high_bytes": predicted.high_bytes,
        "error": predicted.peak_bytes / measured - 1,
        "parts": predicted.parts,
    }


def line(row: dict[str, Any]) -> str:
    def mib(name: str) -> str:
        return f"{row[name] / MIB:,.0f}"

    return (
        f"{row['nodes']:>9,} nodes  {row['engine']:9}  {row['fanout']}, batch {row['batch_size']}: "
        f"measured {mib('measured_bytes')} MiB, predicted {mib('predicted_bytes')} "
        f"({mib('low_bytes')} to {mib('high_bytes')}), {row['error']:+.1%}"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scales = sorted({case.scale for case in CASES})
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        choices=scales,
        default=scales,
        metavar="SCALE",
        help="only graphs of these shares of ogbn-products' nodes; 1 takes 10 GB (%(default)s)",
    )
    parser.add_argument(
        "--stores",
        type=Path,
        default=Path("results/stores"),
        help="folder for the synthetic graphs, made there once (%(default)s)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
