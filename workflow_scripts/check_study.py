"""Read a study's configuration and its site, and say in a sentence what is wrong with them."""

from __future__ import annotations

import argparse

from sagebench.errors import run_script
from sagebench.grid.study import add_study_arguments, study_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_study_arguments(parser)
    study_of(parser.parse_args())


if __name__ == "__main__":
    run_script(main)
