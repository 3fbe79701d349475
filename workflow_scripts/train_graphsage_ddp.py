"""Train with DDP, one process per device; started by srun, torchrun or run_trial.py, or alone.

Each process runs this script and is one rank. The place of a rank comes from the environment:
RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE (torchrun), or Slurm's (srun).
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import NoReturn

from sagebench.errors import run_script, script_parser
from sagebench.grid.trial import read_trial


def main(description: str = __doc__ or "") -> NoReturn:
    parser = script_parser(description)
    parser.add_argument("--trial", type=Path, required=True, help="trial.json: what to run")
    parser.add_argument("--store", type=Path, required=True, help="the graph store's folder")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for measured.json and best.pt"
    )
    arguments = parser.parse_args()
    trial = read_trial(arguments.trial)
    from sagebench.training.rank import run_rank

    code = run_rank(trial, arguments.store, arguments.out)
    if code == 0:
        atexit._run_exitfuncs()  # else peers may wait for this rank, and a tidy end for them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of libraries that outlive the interpreter abort the process


if __name__ == "__main__":
    run_script(main)
