"""Estimate a study's cost: print the plan, and write plan.csv and plan.html.

Works from the configuration alone, and then tells the walltimes asked for. What `snakemake probe`
sampled and recorded, what `snakemake pilot` measured, and outcomes refine it. plan.json beside it
holds what it decides: trials that are not run, walltimes, and whether a budget is kept.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from sagebench.errors import run_script
from sagebench.files import write_atomic, write_json
from sagebench.grid.freeze import DEFAULT_CONFIGURATION, DEFAULT_SITE, study_of, study_parser
from sagebench.plan.decisions import applied, decide, has_guards, plan_path, refusal
from sagebench.plan.forecast import Forecaster
from sagebench.plan.limits import hints, sentences
from sagebench.plan.rows import plan_rows, total_of
from sagebench.plan.tables import as_csv, as_text, device_word


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--out", metavar="CSV", help="default: results/<study>/plan.csv")
    parser.add_argument(
        "--check", action="store_true", help="only say what is wrong with the configuration"
    )
    parser.add_argument(
        "--decisions-only",
        action="store_true",
        help="write plan.json alone, and only where the study leaves something to its plan",
    )
    arguments = parser.parse_args()
    study = study_of(arguments)
    if arguments.check or (arguments.decisions_only and not has_guards(study)):
        return
    forecaster = Forecaster(study, warn=lambda said: print(f"warning: {said}", file=sys.stderr))
    decisions = decide(study, forecaster)
    study = applied(decisions, study)
    rows = plan_rows(study, forecaster)
    budget = {"node_hours": total_of(rows).node_hours, "refusal": refusal(study, rows)}
    write_json(plan_path(study), {**asdict(decisions), **budget})
    if arguments.decisions_only:
        return
    path = Path(arguments.out or f"{study.results}/{study.name}/plan.csv")
    page = path.with_suffix(".html")
    write_atomic(path, as_csv(rows, device_word(study)))
    print(as_text(study, rows, sentences(study, rows)), flush=True)
    for hint in hints(study, rows, lambda target: make(target, arguments)):
        print(hint)
    from sagebench.plan.page import render  # the drawing takes seconds to import

    write_atomic(page, render(study, rows, forecaster))
    print(f"Every trial: {path}\nThe page: {page}")


def make(target: str, arguments: argparse.Namespace) -> str:
    """Command line that runs `target` for this plan's study and site."""
    if arguments.study is not None:  # Snakemake's own words for them are not known here
        return f"snakemake {target} ..."
    words = ["make", target]
    path, *more = arguments.configfile
    if path != DEFAULT_CONFIGURATION and not more:  # make takes one
        words.append(f"CONFIG={path}")
    if arguments.site != DEFAULT_SITE:
        words.append(f"PROFILE={Path(arguments.site).parent}")
    return shlex.join(words)


if __name__ == "__main__":
    run_script(main)
