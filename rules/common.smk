# What the rules share: the study, and the names of its files. No rules here.
import inspect
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(os.path.relpath(workflow.basedir))
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS.absolute()))

from sagebench.cluster.orphans import cancel_orphans
from sagebench.cluster.stale_lock import hold_folder
from sagebench.errors import UserError, full_disk_told
from sagebench.grid.environment import (
    announce_study,
    announced_study,
    lead_commands,
    profile_site,
)
from sagebench.grid.freeze import (
    Freezer,
    manifest_path,
    outcome_path,
    store_spec_path,
    thaw,
    trial_path,
)
from sagebench.grid.resources import (
    cpu_job_resources,
    geometry,
    preflight_walltime_min,
    slurm_resources,
)
from sagebench.grid.study import DEFAULT_CONFIGURATION, DEFAULT_SITE, load_study
from sagebench.grid.submission import check_submission
from sagebench.launch.image import is_current
from sagebench.plan.guards import check_budget, freeze_predictions, guarded

lead_commands(SCRIPTS)


def read_study():
    """The study as configured; in a job of a run, the study as that run froze it."""
    if not workflow.is_main_process and announced_study():
        return thaw(announced_study())
    overrides = dict(workflow.config_settings.config)
    site = overrides.pop("site", None) or profile_site(sys.argv) or ROOT / DEFAULT_SITE
    files = workflow.overwrite_configfiles or [ROOT / DEFAULT_CONFIGURATION]
    try:
        return guarded(load_study(files, site, overrides))
    except UserError as error:
        # A WorkflowError would bury the sentence under line numbers.
        sys.exit(f"error: {error}")


study = read_study()
freezer = Freezer(study)
if workflow.is_main_process:
    announce_study(freezer.run_path)
    folder_in_use = hold_folder(Path.cwd())  # until this process ends

RESULTS = study.results
STUDY = f"{RESULTS}/{study.name}"

# The scripts plot_<key>.py, the heading they stand under, and what each draws.
FIGURES = {
    "batch": ("Batch size", ["batch_time", "batch_memory", "accumulation_time"]),
    "neighbor": ("Neighbor sampling", ["accuracy_time", "memory_fanout"]),
    "scaling": ("Scaling", ["scaling_time", "speedup", "efficiency"]),
    "loss": ("Scaling", ["loss_curves"]),
    "predictions": ("Predictions", ["predicted_measured"]),
}


def outcome_files(wildcards):
    """A function, so that the paths of a large study are made only for the rules that run."""
    return [
        outcome_path(RESULTS, trial_id)
        for trial_id in study.requests
        if trial_id not in study.skipped
    ]


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
        for table in ("trials", "epochs", "not_run")
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


def before_run():
    """What comes before the first job: checks of what is to be submitted, and the frozen files."""
    trials, stores, widths = trials_to_run(), to_run("store"), to_run("preflight")
    if (
        study.site.launcher == "local"
        and not workflow.executor_plugin.common_settings.local_exec
    ):
        sys.exit(
            f"error: jobs are to be submitted, but the site of {study.site.machine} starts trials "
            "here: add --config site=PATH of the cluster's site.yaml."
        )
    try:
        if trials:
            check_budget(study)
        if study.site.launcher == "slurm" and (trials or stores or widths):
            check_submission(
                study.site,
                folder=str(Path.cwd()),
                python=sys.executable,
                texts=texts_of_jobs(),
                as_script=getattr(
                    workflow.executor_settings, "pass_command_as_script", True
                ),
            )
            cancel_orphans(Path.cwd(), trials)
        with full_disk_told():
            freezer.write(trials, stores)
            freeze_predictions(study, trials)
    except UserError as error:
        sys.exit(f"error: {error}")


def texts_of_jobs():
    """What Snakemake writes on the command lines of its jobs, beside the folder it is called in."""
    arguments = workflow.config_settings.config_args or []
    return {
        "the path": workflow.main_snakefile,
        "results: the path": RESULTS,
        **{
            f"--config {argument.partition('=')[0]}:": argument
            for argument in arguments
        },
    }


def plain(function):
    """Tell a function of wildcards as one: Snakemake looks at its signature for every job."""
    function.__signature__ = inspect.Signature(
        [inspect.Parameter("wildcards", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    )
    return function


def finished_trials():
    """Those that have an outcome."""
    return {
        trial_id
        for trial_id in study.requests
        if Path(outcome_path(RESULTS, trial_id)).exists()
    }


def trial_store():
    """The manifest of a trial's store; where all trials read the same, no function of the trial.

    A rebuilt store must not rerun what was measured on the same data: its age does not count. Of a
    lost one `ancient` knows nothing: a finished trial does without.
    """
    manifests = {store: manifest_path(RESULTS, store) for store in study.stores}
    lost = workflow.is_main_process and not all(map(os.path.exists, manifests.values()))
    finished = finished_trials() if lost else set()

    def of_trial(wildcards):
        if wildcards.trial in finished:
            return []
        return ancient(manifests[requested(wildcards.trial).store])

    if finished or len(manifests) > 1:
        return plain(of_trial)
    return ancient(*manifests.values())


# Stands for the container image in the flow; in Snakemake's own folder, so that a dry run may take
# it away.
IMAGE_BUILT = ".snakemake/sagebench/image.built"


def image_to_build():
    """Whether a cluster's image is lost, or was built from something else than it is now."""
    site = study.site
    if site.launcher != "slurm" or site.image is None or site.image_definition is None:
        return False
    return not is_current(
        Path(site.image), Path(site.image_definition), site.image_build_options
    )


def image_input():
    """What a job waits for where the image is to be built; nothing for a finished trial.

    Snakemake would run that again too: `ancient` does not help where the input is missing.
    """
    if not workflow.is_main_process or not image_to_build():
        return []
    Path(IMAGE_BUILT).unlink(missing_ok=True)
    finished = finished_trials()
    if not finished:
        return [IMAGE_BUILT]  # no function: Snakemake would call it for every trial

    def of_trial(wildcards):
        return [] if wildcards.get("trial") in finished else [IMAGE_BUILT]

    return plain(of_trial)


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

    resources = {
        name: value if all(other[name] == value for other in others) else of_trial(name)
        for name, value in first.items()
        if value is not None or any(other[name] is not None for other in others)
    }
    if any(request.runtime_min is not None for request in study.requests.values()):
        resources["runtime"] = trial_runtime
    return resources


def trial_runtime(wildcards, attempt):
    """Minutes: the first attempt asks for what was predicted, a later one for the walltime."""
    request = requested(wildcards.trial)
    if attempt > 1 or request.runtime_min is None:
        return request.walltime_min
    return request.runtime_min


def preflight_place(wildcards):
    """Where the ranks of a preflight go, as JSON."""
    return json.dumps(asdict(geometry(int(wildcards.preflight), study.site)))


def preflight_resources():
    """What a preflight asks for: what a trial of as many ranks does, and less time."""
    if study.site.launcher != "slurm":
        return {}

    def of_width(name):
        def value(wildcards):
            return slurm_resources(int(wildcards.preflight), study.site)[name]

        return plain(value)

    asked = {name: of_width(name) for name in slurm_resources(1, study.site)}
    return {"runtime": preflight_walltime_min(study.site), **asked}


def cpu_resources():
    """What the jobs of a cluster that need no device ask for."""
    if study.site.launcher != "slurm":
        return {}
    asked = cpu_job_resources(study.site)
    return {name: value for name, value in asked.items() if value is not None}


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
