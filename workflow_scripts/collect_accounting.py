"""Ask Slurm's accounting what a study's jobs took: accounting.csv, a row an attempt.

What is measured is not touched. Where sacct does not answer, the rows say why.
"""

from __future__ import annotations

from pathlib import Path

from sagebench.cluster.accounting import Asked, as_csv, collect, read_rows
from sagebench.errors import run_script
from sagebench.files import write_atomic
from sagebench.grid.freeze import outcome_path, study_of, study_parser
from sagebench.grid.resources import geometry


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--out", type=Path, metavar="CSV", help="default: results/<study>/")
    arguments = parser.parse_args()
    study = study_of(arguments)
    path = arguments.out or Path(study.results, study.name, "accounting.csv")
    on_gpus = study.site.device == "cuda"
    trials = []
    for trial_id, request in study.requests.items():
        ranks = request.trial.ranks
        gpus = geometry(ranks, study.site).devices_allocated if on_gpus else None
        trials.append(Asked(Path(outcome_path(study.results, trial_id)).parent, ranks, gpus))
    rows = collect(trials, read_rows(path))
    write_atomic(path, as_csv(rows))
    without = [row for row in rows if row["reason"]]
    print(f"{len(rows) - len(without)} of {len(rows)} attempts are in Slurm's accounting: {path}")
    for reason in dict.fromkeys(row["reason"] for row in without):
        print(f"  {sum(row['reason'] == reason for row in without)} are not: {reason}")


if __name__ == "__main__":
    run_script(main)
