"""Collect Slurm's accounting of a study's jobs into accounting.csv, one row per attempt.

What is measured is not touched. Where sacct does not answer, the rows say why.
"""

from __future__ import annotations

from pathlib import Path

from sagebench.errors import run_script
from sagebench.files import write_atomic
from sagebench.grid.freeze import outcome_path, study_of, study_parser
from sagebench.grid.site import geometry
from sagebench.slurm.accounting import TrialJob, as_csv, collect, read_rows


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
        trials.append(TrialJob(Path(outcome_path(study.results, trial_id)).parent, ranks, gpus))
    rows = collect(trials, read_rows(path))
    write_atomic(path, as_csv(rows))
    known = sum(not row["reason"] for row in rows)
    print(f"{known} of {len(rows)} attempts are in Slurm's accounting: {path} says why not all")


if __name__ == "__main__":
    run_script(main)
