"""Print what a study asks for, and write it to plan.csv; works from the configuration alone."""

from __future__ import annotations

import argparse

from sagebench.errors import run_script
from sagebench.files import write_atomic
from sagebench.grid import plan
from sagebench.grid.study import add_study_arguments, study_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_study_arguments(parser)
    parser.add_argument("--out", metavar="CSV", help="default: results/<study>/plan.csv")
    arguments = parser.parse_args()
    study = study_of(arguments)
    rows = plan.plan_rows(study)
    path = arguments.out or f"{study.results}/{study.name}/plan.csv"
    write_atomic(path, plan.as_csv(rows, plan.device_word(study)))
    print(plan.as_text(study, rows))
    print(f"Every trial: {path}")


if __name__ == "__main__":
    run_script(main)
