"""Sample a few micro-batches of every (fanout, batch size) that a study asks for, on this CPU.

What was sampled goes to results/probes/<store>.json, for the plan; it is never sampled twice.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sagebench.errors import run_script
from sagebench.graph.store import GraphStore
from sagebench.grid.freeze import manifest_path
from sagebench.grid.study import add_study_arguments, study_of
from sagebench.predict.probe import path_of, probe_store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_study_arguments(parser)
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
        requests = {
            (request.trial.fanout, request.trial.batch_size)
            for request in study.requests.values()
            if request.store == name
        }
        path = path_of(study.results, name)
        probe_store(store, requests, path, threads=max(1, arguments.threads), say=print)
        print(f"{len(requests)} pairs of fanout and batch size: {path}")


if __name__ == "__main__":
    run_script(main)
