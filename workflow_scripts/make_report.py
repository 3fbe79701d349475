"""Write a study's report: one self-contained HTML file with its tables and figures."""

from __future__ import annotations

from pathlib import Path

from sagebench.analysis.outcomes import read_study
from sagebench.analysis.report import relative_links, render
from sagebench.analysis.tables import read_accounting, read_table
from sagebench.errors import run_script, script_parser
from sagebench.files import write_atomic


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--study", required=True, help="frozen study (JSON)")
    parser.add_argument("--tables", required=True, help="folder that make_tables.py wrote")
    parser.add_argument("--figures", required=True, help="folder with the figures (SVG)")
    parser.add_argument("--accounting", help="accounting.csv of the study, if there is one")
    parser.add_argument("--out", required=True, help="the report (HTML)")
    arguments = parser.parse_args()
    names = ["trials.csv", "trials.parquet", "epochs.csv", "epochs.parquet"]
    page = render(
        read_study(arguments.study),
        read_table(arguments.tables, "trials"),
        read_table(arguments.tables, "epochs"),
        read_table(arguments.tables, "not_run"),
        Path(arguments.figures),
        relative_links(arguments.out, arguments.tables, names),
        read_accounting(arguments.accounting),
    )
    write_atomic(arguments.out, page)


if __name__ == "__main__":
    run_script(main)
