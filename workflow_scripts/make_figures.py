"""Draw a study's figures from its tables, each as SVG, as PNG and with its caption."""

from __future__ import annotations

from pathlib import Path

from sagebench.analysis.drawing import draw
from sagebench.analysis.figures import declared
from sagebench.analysis.tables import read_table
from sagebench.errors import run_script, script_parser
from sagebench.files import write_atomic
from sagebench.page import style


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--tables", required=True, help="folder that make_tables.py wrote")
    parser.add_argument("--axes", nargs="*", default=[], help="that the study's experiments have")
    parser.add_argument("--out", required=True, help="folder for the .svg, .png and .rst files")
    arguments = parser.parse_args()
    trials, epochs, not_run = (
        read_table(arguments.tables, name) for name in ("trials", "epochs", "not_run")
    )
    with style.look():
        for one in declared(arguments.axes):
            style.save(draw(one, trials, epochs, not_run), arguments.out, one.name)
            caption = f"**{one.title}.** {one.caption}\n"
            write_atomic(Path(arguments.out, f"{one.name}.rst"), caption)


if __name__ == "__main__":
    run_script(main)
