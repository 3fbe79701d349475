"""Measure a few micro-steps of every configuration of a study that costs something else, here.

Each in a process of its own, started as a trial's ranks are; what is in results/pilots/<machine>/
is never measured again. Exit code 0 means that all of it is there.
"""

from __future__ import annotations

from sagebench.errors import run_script
from sagebench.grid.freeze import study_of, study_parser
from sagebench.pilot.series import Series


def main() -> int:
    parser = study_parser(__doc__)
    return Series(study_of(parser.parse_args())).run()


if __name__ == "__main__":
    run_script(main)
