"""One rank on its node; started by run_trial.py and prepare.py, nobody else needs this.

start: runs a command as the rank, logs it and notes how it ended; Slurm's srun starts this.
pilot: such a command, in the container: times micro-steps, or validation and test.
preflight: another: checks its node, and writes rank-R.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

from sagebench.errors import run_script, script_parser


def main() -> int:
    parser = script_parser(__doc__)
    of_what = parser.add_subparsers(dest="what", required=True)
    start = of_what.add_parser("start")
    start.add_argument("--directory", type=Path, required=True, help="folder of the attempt")
    start.add_argument("--rank", type=int, help="default: Slurm's number, SLURM_PROCID")
    start.add_argument("command", nargs="+", help="what to run, after --")
    pilot = of_what.add_parser("pilot")
    pilot.add_argument("--trial", type=Path, required=True, help="trial.json: what to run")
    pilot.add_argument("--store", type=Path, required=True, help="the graph store's folder")
    pilot.add_argument("--out", type=Path, required=True, help="folder of the attempt")
    pilot.add_argument("--part", required=True, help="file to make of it")
    preflight = of_what.add_parser("preflight")
    preflight.add_argument("checks", type=json.loads, help="what check_rank takes, as JSON")
    arguments = parser.parse_args()
    run = {"start": run_command, "pilot": run_pilot, "preflight": run_preflight}
    return run[arguments.what](arguments)


def run_command(arguments: argparse.Namespace) -> int:
    from sagebench.launch.ends import supervise_rank

    rank = int(os.environ["SLURM_PROCID"]) if arguments.rank is None else arguments.rank
    return supervise_rank(rank, arguments.command, arguments.directory)


def run_pilot(arguments: argparse.Namespace) -> int:
    from sagebench.grid.trial import read_trial

    trial = read_trial(arguments.trial)
    from sagebench.pilot.rank import PilotRun
    from sagebench.training.rank import run_rank

    run = partial(PilotRun, part=arguments.part)
    return run_rank(trial, arguments.store, arguments.out, run)


def run_preflight(arguments: argparse.Namespace) -> int:
    from sagebench.preflight.rank import check_rank

    error = check_rank(**arguments.checks)
    if error is None:
        return 0
    # Peers may wait for this rank in a collective; a tidy shutdown would wait for them.
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    run_script(main)
