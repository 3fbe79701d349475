"""Write a study's tables `trials` and `epochs` as CSV and Parquet."""

from __future__ import annotations

from sagebench.analysis.outcomes import Record, not_run_records, read_records, read_study
from sagebench.analysis.tables import build_tables, not_run_table, read_accounting, write_table
from sagebench.errors import run_script, script_parser


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--study", required=True, help="frozen study (JSON)")
    parser.add_argument("--results", required=True, help="folder that holds trials/")
    parser.add_argument("--out", required=True, help="folder for trials.* and epochs.*")
    parser.add_argument("--accounting", help="accounting.csv of the study, if there is one")
    parser.add_argument(
        "--partial", action="store_true", help="continue if outcomes are missing, and list them"
    )
    arguments = parser.parse_args()
    study = read_study(arguments.study)
    records = read_records(study, arguments.results, arguments.partial)
    trials, epochs = build_tables(records, read_accounting(arguments.accounting))
    write_table(not_run_table(not_run_records(study, arguments.results)), arguments.out, "not_run")
    write_table(epochs, arguments.out, "epochs")
    write_table(trials, arguments.out, "trials")
    if arguments.partial:
        print(summary(records))


def summary(records: list[Record]) -> str:
    """How many of how many trials have an outcome, and why the others have none."""
    missing = [record for record in records if record.outcome is None]
    lines = [f"{len(records) - len(missing)} of {len(records)} trials have an outcome"]
    lines += [f"  {record.trial_id}: {record.because}" for record in missing]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
