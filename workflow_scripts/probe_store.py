"""Sample a few micro-batches of every (fanout, batch size) that a study asks for, and record a step
of every configuration, on this CPU.

Both go to results/probes/<store>.json, for the plan; what is there is not taken again.
"""

from __future__ import annotations

import os
from pathlib import Path

from sagebench.errors import run_script
from sagebench.estimate.grid_cells import trials_to_probe
from sagebench.estimate.probe import path_of, probe_store
from sagebench.graph.store import GraphStore
from sagebench.grid.freeze import manifest_path, study_of, study_parser


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="micro-batches sampled at a time (default: as many as there are cores: %(default)s)",
    )
    arguments = parser.parse_args()
    study = study_of(arguments)
    for name in study.stores:
        store = GraphStore.open(Path(manifest_path(study.results, name)).parent)
        of_store = [r.trial for r in study.requests.values() if r.store == name]
        trials = [trial for trial in of_store if trial.in_minibatches]
        wanted = trials_to_probe(trials, len(store.train))
        path, threads = path_of(study.results, name), max(1, arguments.threads)
        probe = probe_store(store, wanted, path, threads=threads, say=say)
        say(f"{len(probe.samples)} samples and {len(probe.steps)} recorded steps: {path}")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run_script(main)
