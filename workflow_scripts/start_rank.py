"""Run one rank of a trial on its node: logs it and notes how it ended.

run_trial.py starts this, by srun where there is Slurm; nobody else needs it.
"""

from __future__ import annotations

import os
from pathlib import Path

from sagebench.errors import run_script, script_parser
from sagebench.launch.rank_end import supervise_rank


def main() -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="folder of the attempt")
    parser.add_argument("--rank", type=int, help="default: Slurm's number, SLURM_PROCID")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    arguments = parser.parse_args()
    rank = int(os.environ["SLURM_PROCID"]) if arguments.rank is None else arguments.rank
    return supervise_rank(rank, arguments.command, arguments.directory)


if __name__ == "__main__":
    run_script(main)
