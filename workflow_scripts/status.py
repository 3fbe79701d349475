"""Print the status of every trial of a study, during or after a run."""

from __future__ import annotations

from sagebench.errors import run_script
from sagebench.grid.freeze import study_of, study_parser
from sagebench.plan.decisions import guarded
from sagebench.slurm.states import as_csv, as_text, look


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--csv", action="store_true", help="all of it, for a program")
    arguments = parser.parse_args()
    study = guarded(study_of(arguments))
    states, queue_unknown = look(study)
    if arguments.csv:
        print(as_csv(states), end="")
    else:
        print(as_text(f"{study.name} on {study.site.machine}", states, queue_unknown))


if __name__ == "__main__":
    run_script(main)
