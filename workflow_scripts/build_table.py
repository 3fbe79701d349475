"""Build a store's table of aggregated features, which a fanout that ends in -1 reads."""

from __future__ import annotations

import sys
from pathlib import Path

from sagebench.engines.aggregated_features import build_table
from sagebench.errors import run_script, script_parser
from sagebench.graph.store import GraphStore
from sagebench.kernels.segment import AGGREGATORS


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--store", required=True, type=Path, help="folder of the store")
    parser.add_argument("--aggregator", required=True, choices=AGGREGATORS)
    arguments = parser.parse_args()
    tenth = 0
    for share in build_table(GraphStore.open(arguments.store), arguments.aggregator):
        if int(share * 10) > tenth:
            tenth = int(share * 10)
            print(f"{arguments.aggregator}: {tenth * 10} %", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
