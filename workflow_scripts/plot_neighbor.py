"""Draw fanouts: test accuracy against time, and memory against total fanout."""

from __future__ import annotations

import argparse

from sagebench.analysis import neighbor, style
from sagebench.analysis.tables import read_table
from sagebench.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", required=True, help="folder that make_tables.py wrote")
    parser.add_argument("--out", required=True, help="folder for the .svg and .png files")
    arguments = parser.parse_args()
    trials = read_table(arguments.tables, "trials")
    not_run = read_table(arguments.tables, "not_run")
    with style.look():
        for name, figure in neighbor.figures(trials, not_run).items():
            style.save(figure, arguments.out, name)


if __name__ == "__main__":
    run_script(main)
