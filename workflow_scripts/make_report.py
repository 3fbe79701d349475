"""Make a study's tables from its outcomes, its figures from the tables, its report from both.

The tables, CSV and Parquet, lie in OUT/tables; the figures, each as SVG, as PNG and with its
caption, in OUT/figures; the report is OUT/report.html, one self-contained file.
"""

from __future__ import annotations

from pathlib import Path

from sagebench.analysis.drawing import draw
from sagebench.analysis.figures import declared
from sagebench.analysis.outcomes import Record, read_records, read_study
from sagebench.analysis.report import axes_of, render
from sagebench.analysis.tables import (
    TABLES,
    build_tables,
    read_accounting,
    read_table,
    write_table,
)
from sagebench.errors import run_script, script_parser
from sagebench.files import write_atomic
from sagebench.page import style
from sagebench.records import Status


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("stages", nargs="+", choices=["tables", "figures", "report"])
    parser.add_argument("--study", required=True, help="frozen study (JSON)")
    parser.add_argument("--results", required=True, help="folder that holds trials/")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is made")
    parser.add_argument("--accounting", help="accounting.csv of the study, if there is one")
    parser.add_argument(
        "--partial", action="store_true", help="continue if outcomes are missing, and list them"
    )
    arguments = parser.parse_args()
    study, out = read_study(arguments.study), arguments.out
    accounting = read_accounting(arguments.accounting)
    if "tables" in arguments.stages:
        records = read_records(study, arguments.results, arguments.partial)
        for name, table in zip(TABLES, build_tables(records, accounting), strict=True):
            write_table(table, out / "tables", name)
        if arguments.partial:
            print(summary(records))
    tables = [read_table(out / "tables", name) for name in TABLES]
    if "figures" in arguments.stages:
        with style.look():
            for one in declared(axes_of(study)):
                style.save(draw(one, *tables), out / "figures", one.name)
                caption = f"**{one.title}.** {one.caption}\n"
                write_atomic(out / "figures" / f"{one.name}.rst", caption)
    if "report" in arguments.stages:
        write_atomic(out / "report.html", render(study, *tables, out, accounting))


def summary(records: list[Record]) -> str:
    """Number of trials that have an outcome, and why the others have none."""
    asked = [record for record in records if record.status is not Status.SKIPPED]
    missing = [record for record in asked if record.outcome is None]
    lines = [f"{len(asked) - len(missing)} of {len(asked)} trials have an outcome"]
    lines += [f"  {record.trial_id}: {record.because}" for record in missing]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
