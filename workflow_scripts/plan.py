"""Say what a study takes: print it, and write plan.csv and plan.html.

Works from the configuration alone, and then tells the walltimes asked for. What `snakemake probe`
sampled, the machine's rates (calibrate.py, or the site's card) and outcomes refine it.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from sagebench.errors import run_script
from sagebench.files import write_atomic
from sagebench.grid.study import (
    DEFAULT_CONFIGURATION,
    DEFAULT_SITE,
    add_study_arguments,
    study_of,
)
from sagebench.plan.as_text import as_csv, as_text, device_word
from sagebench.plan.build import plan_rows
from sagebench.plan.forecast import Forecaster
from sagebench.plan.guards import guarded
from sagebench.plan.limits import sentences


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_study_arguments(parser)
    parser.add_argument("--out", metavar="CSV", help="default: results/<study>/plan.csv")
    parser.add_argument("--page", metavar="HTML", help="default: plan.html beside it")
    arguments = parser.parse_args()
    study = guarded(study_of(arguments))
    path = Path(arguments.out or f"{study.results}/{study.name}/plan.csv")
    page = Path(arguments.page or path.with_suffix(".html"))
    forecaster = Forecaster(study)
    rows = plan_rows(study, forecaster)
    write_atomic(path, as_csv(rows, device_word(study)))
    print(as_text(study, rows, sentences(study, rows)), flush=True)
    if any(row.to_run and row.sampled is None for row in rows):
        command = make("probe", arguments)
        print(f"`{command}` makes predictions of them: memory and time of every trial.")
    elif forecaster.rates is None and any(row.to_run for row in rows):
        command = make("calibrate", arguments)
        print(f"Their times: after `{command}` on that machine, or with its card in the site.")
    from sagebench.plan.page import render  # the drawing takes seconds to import

    write_atomic(page, render(study, rows, forecaster))
    print(f"Every trial: {path}\nThe page: {page}")


def make(target: str, arguments: argparse.Namespace) -> str:
    """The command that makes `target` for the study and site that this plan was asked for."""
    words = ["make", target]
    path, *more = arguments.configfile
    if target != "calibrate" and path != DEFAULT_CONFIGURATION and not more:  # make takes one
        words.append(f"CONFIG={path}")
    if arguments.site != DEFAULT_SITE:
        words.append(f"PROFILE={Path(arguments.site).parent}")
    return shlex.join(words)


if __name__ == "__main__":
    run_script(main)
