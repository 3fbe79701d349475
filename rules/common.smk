# What the rules share: the study, and the names of its files. No rules here.
import inspect
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(os.path.relpath(workflow.basedir))
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS.absolute()))

from sagebench.errors import UserError
from sagebench.grid.environment import announce_study, announced_study, lead_commands
from sagebench.grid.freeze import (
    Freezer,
    manifest_path,
    outcome_path,
    store_spec_path,
    thaw,
    trial_path,
)
from sagebench.grid.resources import slurm_resources
from sagebench.grid.study import DEFAULT_CONFIGURATION, DEFAULT_SITE, load_study

lead_commands(SCRIPTS)


def read_study():
    """The study as configured; in a job of a run, the study as that run froze it."""
    if not workflow.is_main_process and announced_study():
        return thaw(announced_study())
    overrides = dict(workflow.config_settings.config)
    site = overrides.pop("site", config.get("site", ROOT / DEFAULT_SITE))
    files = workflow.overwrite_configfiles or [ROOT / DEFAULT_CONFIGURATION]
    try:
        return load_study(files, site, overrides)
    except UserError as error:
        # A WorkflowError would bury the sentence under line numbers.
        sys.exit(f"error: {error}")


study = read_study()
freezer = Freezer(study)
if workflow.is_main_process:
    announce_study(freezer.path)

RESULTS = study.results
STUDY = f"{RESULTS}/{study.name}"

# The scripts plot_<key>.py, the heading they stand under, and what each draws.
FIGURES = {
    "batch": ("Batch size", ["batch_time", "batch_memory", "accumulation_time"]),
    "neighbor": ("Neighbor sampling", ["accuracy_time", "memory_fanout"]),
    "scaling": ("Scaling", ["scaling_time", "speedup", "efficiency"]),
    "loss": ("Scaling", ["loss_curves"]),
}


def outcome_files(wildcards):
    """A function, so that the paths of a large study are made only for the rules that run."""
    return [outcome_path(RESULTS, trial_id) for trial_id in study.requests]


def captioned(path, category):
    """A file for Snakemake's own report, with report/<its name>.rst as the caption."""
    name = Path(path).stem
    labels = {"what": name.replace("_", " ")}
    return report(
        path, caption=f"../report/{name}.rst", category=category, labels=labels
    )


def table_files(flagged=False):
    trials, *others = (
        f"{STUDY}/tables/{table}.{kind}"
        for table in ("trials", "epochs")
        for kind in ("csv", "parquet")
    )
    return [captioned(trials, "Tables") if flagged else trials, *others]


def figure_files(plot, flagged=False):
    """The files that a plot draws; Snakemake's own report shows the SVGs, with captions."""
    category, names = FIGURES[plot]
    drawings = [f"{STUDY}/figures/{name}.svg" for name in names]
    if flagged:
        drawings = [captioned(path, category) for path in drawings]
    return drawings + [f"{STUDY}/figures/{name}.png" for name in names]


def report_file():
    return f"{STUDY}/report.html"


def script(name):
    return str(SCRIPTS / name)


def analysis_library(*patterns):
    """The code behind the analysis, an input of it: a changed plot is drawn again."""
    library = SCRIPTS / "sagebench" / "analysis"
    return sorted(
        str(path) for pattern in patterns or ["*.py"] for path in library.rglob(pattern)
    )


def requested(trial_id):
    """What the study asks for a trial; WorkflowError where it is none of its trials."""
    try:
        return study.requests[trial_id]
    except KeyError:
        raise WorkflowError(
            f"{trial_id} is no trial of the study {study.name}."
        ) from None


def to_run(rule):
    """What stands for the wildcard of the same name in the jobs of `rule` that this run does."""
    jobs = workflow.dag.needrun_jobs()
    return [getattr(job.wildcards, rule) for job in jobs if job.rule.name == rule]


def trials_to_run():
    """The trials that this run is going to run."""
    trial_ids = to_run("trial")
    for trial_id in trial_ids:
        requested(trial_id)
    return trial_ids


def plain(function):
    """Tell a function of wildcards as one: Snakemake looks at its signature for every job."""
    function.__signature__ = inspect.Signature(
        [inspect.Parameter("wildcards", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    )
    return function


def trial_store():
    """The manifest of a trial's store; where all trials read the same, no function of the trial.

    A rebuilt store must not rerun what was measured on the same data: its age does not count.
    """

    def of_trial(wildcards):
        return ancient(manifest_path(RESULTS, requested(wildcards.trial).store))

    if len(study.stores) > 1:
        return plain(of_trial)
    return ancient(manifest_path(RESULTS, *study.stores))


def trial_resources():
    """What a trial asks for, by resource; one value where all trials ask for the same.

    Only what differs is a function of the trial: Snakemake calls it for each of them.
    """
    slurm = study.site.launcher == "slurm"
    asked = {}  # by number of ranks and walltime: there are few of them
    for request in study.requests.values():
        key = request.trial.ranks, request.walltime_min
        if key not in asked:
            asked[key] = {"runtime": request.walltime_min}
            if slurm:
                asked[key] |= slurm_resources(request.trial.ranks, study.site)
    first, *others = asked.values()

    def of_trial(name):
        def value(wildcards):
            request = requested(wildcards.trial)
            return asked[request.trial.ranks, request.walltime_min][name]

        return plain(value)

    return {
        name: value if all(other[name] == value for other in others) else of_trial(name)
        for name, value in first.items()
        if value is not None or any(other[name] is not None for other in others)
    }


def trial_threads():
    """On one machine every core, so that nothing runs beside a trial that is being timed.

    On a cluster the resource cpus_per_task says it.
    """
    if study.site.launcher == "slurm":
        return 1
    try:
        return workflow.cores
    except WorkflowError:  # none needed, e.g. for --lint
        return 1
