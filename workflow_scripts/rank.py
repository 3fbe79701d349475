"""One rank of a pilot or of a preflight, in the container, started as a trial's ranks are.

pilot: times micro-steps, or validation and test. preflight: checks, and writes rank-R.json.
prepare.py starts this; nobody else needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from sagebench.errors import run_script, script_parser
from sagebench.grid.trial import read_trial


def main() -> int:
    parser = script_parser(__doc__)
    of_what = parser.add_subparsers(dest="what", required=True)
    pilot = of_what.add_parser("pilot")
    pilot.add_argument("--trial", type=Path, required=True, help="trial.json: what to run")
    pilot.add_argument("--store", type=Path, required=True, help="the graph store's folder")
    pilot.add_argument("--out", type=Path, required=True, help="folder of the attempt")
    pilot.add_argument("--part", required=True, help="file to make of it")
    preflight = of_what.add_parser("preflight")
    preflight.add_argument("checks", type=json.loads, help="what check_rank takes, as JSON")
    arguments = parser.parse_args()
    return run_pilot(arguments) if arguments.what == "pilot" else run_preflight(arguments.checks)


def run_pilot(arguments: argparse.Namespace) -> int:
    trial = read_trial(arguments.trial)
    from sagebench.pilot.rank import PilotRun
    from sagebench.training.rank import run_rank

    run = partial(PilotRun, part=arguments.part)
    return run_rank(trial, arguments.store, arguments.out, run)


def run_preflight(checks: dict[str, Any]) -> int:
    from sagebench.preflight.rank import check_rank

    error = check_rank(**checks)
    if error is None:
        return 0
    # Peers may wait for this rank in a collective; a tidy shutdown would wait for them.
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    run_script(main)
