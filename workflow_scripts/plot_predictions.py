"""Draw what was predicted of the trials against what was measured."""

from __future__ import annotations

import argparse

from sagebench.analysis import predictions, style
from sagebench.analysis.tables import read_table
from sagebench.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", required=True, help="folder that make_tables.py wrote")
    parser.add_argument("--out", required=True, help="folder for the .svg and .png files")
    arguments = parser.parse_args()
    trials = read_table(arguments.tables, "trials")
    with style.look():
        for name, figure in predictions.figures(trials).items():
            style.save(figure, arguments.out, name)


if __name__ == "__main__":
    run_script(main)
