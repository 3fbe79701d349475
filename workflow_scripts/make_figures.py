"""Draw a study's figures from its tables, each as SVG and as PNG."""

from __future__ import annotations

from sagebench.analysis import batch, loss, neighbor, predictions, scaling, style
from sagebench.analysis.tables import read_table
from sagebench.errors import run_script, script_parser


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--tables", required=True, help="folder that make_tables.py wrote")
    parser.add_argument("--out", required=True, help="folder for the .svg and .png files")
    arguments = parser.parse_args()
    trials, epochs, not_run = (
        read_table(arguments.tables, name) for name in ("trials", "epochs", "not_run")
    )
    with style.look():
        for figures in (
            batch.figures(trials, not_run),
            neighbor.figures(trials, not_run),
            scaling.figures(trials),
            loss.figures(trials, epochs),
            predictions.figures(trials),
        ):
            for name, figure in figures.items():
                style.save(figure, arguments.out, name)


if __name__ == "__main__":
    run_script(main)
