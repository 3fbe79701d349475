"""Run one trial: start its ranks here or by srun, watch them, write outcome.json.

Exit code 0 means that the outcome is there: completed, out_of_memory, time_limit or diverged.
75: stopped with a checkpoint, to go on when it is run again (continue_after_walltime).
Anything else is a failure, which leaves its logs and a line in attempts.jsonl, and no outcome.
"""

from __future__ import annotations

from pathlib import Path

from sagebench.errors import run_script, script_parser
from sagebench.launch.job import Job
from sagebench.launch.launcher import run_trial


def main() -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--trial", type=Path, required=True, help="trial.json: what to run")
    parser.add_argument("--store", type=Path, required=True, help="the graph store's folder")
    parser.add_argument("--outcome", type=Path, required=True, help="the outcome.json to write")
    parser.add_argument(
        "--walltime-min", type=float, help="minutes after which the trial ends as time_limit"
    )
    parser.add_argument(
        "--study",
        type=Path,
        metavar="FROZEN",
        help="the frozen study, which says how its site starts ranks; none: as processes here",
    )
    arguments = parser.parse_args()
    walltime_s = None if arguments.walltime_min is None else 60 * arguments.walltime_min
    job = Job.read(arguments.trial, arguments.store, arguments.outcome, arguments.study)
    return run_trial(job, walltime_s)


if __name__ == "__main__":
    run_script(main)
