"""The one rank of a pilot, in the container: times micro-steps, or validation and test.

pilot.py starts this, as a trial's ranks are started; nobody else needs it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sagebench.errors import run_script, script_parser
from sagebench.grid.trial import read_trial


def main() -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--trial", type=Path, required=True, help="trial.json: what to run")
    parser.add_argument("--store", type=Path, required=True, help="the graph store's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the attempt")
    parser.add_argument("--part", required=True, help="file to make of it")
    arguments = parser.parse_args()
    trial = read_trial(arguments.trial)
    from sagebench.pilot.rank import PilotRun
    from sagebench.training.rank import run_rank

    run = partial(PilotRun, part=arguments.part)
    return run_rank(trial, arguments.store, arguments.out, run)


if __name__ == "__main__":
    run_script(main)
