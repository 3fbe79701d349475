"""Measure a few micro-steps of every configuration of a study that costs something else, here.

Each in a process of its own, started as a trial's ranks are; what is in results/pilots/<machine>/
is never measured again. Exit code 0 means that all of it is there.
"""

from __future__ import annotations

import argparse

from sagebench.errors import run_script
from sagebench.grid.study import add_study_arguments, study_of
from sagebench.pilot.series import Series


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_study_arguments(parser)
    return Series(study_of(parser.parse_args())).run()


if __name__ == "__main__":
    run_script(main)
