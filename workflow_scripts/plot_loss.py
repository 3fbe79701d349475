"""Draw the training loss over the epochs, a line for every number of ranks."""

from __future__ import annotations

import argparse

from sagebench.analysis import loss, style
from sagebench.analysis.tables import read_table
from sagebench.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", required=True, help="folder that make_tables.py wrote")
    parser.add_argument("--out", required=True, help="folder for the .svg and .png files")
    arguments = parser.parse_args()
    trials = read_table(arguments.tables, "trials")
    epochs = read_table(arguments.tables, "epochs")
    with style.look():
        for name, figure in loss.figures(trials, epochs).items():
            style.save(figure, arguments.out, name)


if __name__ == "__main__":
    run_script(main)
