# What the rules share: the study, and what comes before its first job. No rules here.
import atexit
import os
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(os.path.relpath(workflow.basedir))
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS.absolute()))

from sagebench.analysis.figures import declared, heading
from sagebench.errors import UserError, full_disk_as_user_error
from sagebench.grid import freeze, jobs
from sagebench.grid.freeze import (
    manifest_path,
    outcome_path,
    store_spec_path,
    trial_path,
)
from sagebench.grid.last_hop import table_aggregator, table_manifest
from sagebench.grid.trial import base_dataset, store_name
from sagebench.launch.container import check_image
from sagebench.pilot.records import missing_of
from sagebench.plan.decisions import check_decisions, guarded
from sagebench.slurm.snakemake import (
    bound_waits,
    cancel_orphans,
    hold_folder,
    keep_finished,
)

# Jobs find them in their environment: a parameter that changes reruns its jobs, and where the
# checkout lies must not rerun a trial. `python` is the one that runs Snakemake.
os.environ |= {
    "SAGEBENCH_SCRIPTS": str(SCRIPTS.absolute()),
    "PATH": f"{Path(sys.executable).parent}:{os.getenv('PATH', '')}",
}

settings = workflow.config_settings
named_site = settings.config.get("site") or jobs.profile_site(sys.argv)
SITE = named_site or ROOT / freeze.DEFAULT_SITE


def read_study():
    """The study as configured; in a job of a run, the study as that run froze it."""
    frozen = os.getenv("SAGEBENCH_FROZEN_STUDY", "")
    if not workflow.is_main_process and os.path.isfile(frozen):
        return freeze.load_frozen(frozen)
    overrides = {key: value for key, value in settings.config.items() if key != "site"}
    files = workflow.overwrite_configfiles or [ROOT / freeze.DEFAULT_CONFIGURATION]
    try:
        return guarded(freeze.load_study(files, SITE, overrides))
    except UserError as error:
        # A WorkflowError would bury the sentence under line numbers.
        sys.exit(f"error: {error}")


def tell_refusal():
    """At the end of a dry run, which only then is known to be one."""
    if workflow.dryrun and workflow.dag is not None:
        try:
            check_run(jobs_to_run())
        except UserError as error:
            print(f"A run would be refused: {error}", file=sys.stderr)


study = read_study()
freezer = freeze.Freezer(study)
if workflow.is_main_process:
    os.environ |= {
        "SAGEBENCH_FROZEN_STUDY": str(Path(freezer.run_path).absolute()),
        "SAGEBENCH_RUN_BEGAN": repr(time.time()),
    }
    folder_in_use = hold_folder(Path.cwd())  # until this process ends
    keep_finished(Path.cwd())
    atexit.register(tell_refusal)

RESULTS = study.results
STUDY = f"{RESULTS}/{study.name}"
BY_SLURM = study.site.launcher == "slurm"
CPU_JOB = jobs.cpu_job_resources(study.site)
ON_DEVICES = {"trial", "pilot", "preflight"}
# On one machine every core, so that nothing runs beside a trial that is being timed; on a cluster
# the resource cpus_per_task says it. No cores are given e.g. for --lint.
TRIAL_THREADS = 1 if BY_SLURM else workflow.resource_settings.cores or 1
SUBMITTED = {*ON_DEVICES, "store", "aggregate", "image", "probe"}
AXES = list(dict.fromkeys(experiment.axis for experiment in study.experiments))

# What Slurm's accounting says of the jobs; nothing without Slurm.
ACCOUNTING = [f"{STUDY}/accounting.csv"] if BY_SLURM else []


def outcome_files(wildcards):
    """A function, so that the paths of a large study are made only for the rules that run."""
    return [
        outcome_path(RESULTS, trial_id)
        for trial_id in study.requests
        if trial_id not in study.skipped
    ]


def trial_store(wildcards):
    """The manifest of a trial's store: none of a finished trial whose store is lost.

    A rebuilt store must not rerun what was measured on the same data: its age does not count.
    """
    if wildcards.trial not in study.requests:
        raise WorkflowError(f"{wildcards.trial} is no trial of the study {study.name}.")
    manifest = manifest_path(RESULTS, study.requests[wildcards.trial].store)
    outcome = outcome_path(RESULTS, wildcards.trial)
    lost = os.path.exists(outcome) and not os.path.exists(manifest)
    return [] if lost else ancient(manifest)


def base_store(wildcards):
    """The manifest of the store that one with unseen nodes is made of."""
    base = base_dataset(study.all_stores.get(wildcards.store, {}))
    return ancient(manifest_path(RESULTS, store_name(base))) if base else []


def table_of(request):
    """The manifest of the table that a trial reads its last hop from; None where it samples it."""
    aggregator = table_aggregator(request.trial)
    folder = os.path.dirname(manifest_path(RESULTS, request.store))
    return aggregator and table_manifest(folder, aggregator)


def trial_table(wildcards):
    """An unfinished trial's. A finished one has no need of it."""
    table = table_of(study.requests[wildcards.trial])
    if table is None or os.path.exists(outcome_path(RESULTS, wildcards.trial)):
        return []
    return ancient(table)


def tables_read(wildcards):
    """Those of all trials."""
    return [
        ancient(one)
        for one in dict.fromkeys(map(table_of, study.requests.values()))
        if one
    ]


def captioned(path, category, label, caption=None):
    """A file for Snakemake's own report, with report/<its name>.rst as the caption unless given."""
    caption = Path(caption or ROOT / "report" / f"{Path(path).stem}.rst").absolute()
    return report(path, caption=caption, category=category, labels={"what": label})


TABLES = [
    f"{STUDY}/tables/{table}.{kind}"
    for table in ("trials", "epochs", "not_run", "new_nodes")
    for kind in ("csv", "parquet")
]
TABLES[0] = captioned(TABLES[0], "Tables", "trials")
REPORT = captioned(f"{STUDY}/report.html", "Report", "report")
FIGURES = []  # each as SVG, PNG and caption; Snakemake's own report shows the SVGs
for one in declared(AXES):
    path = f"{STUDY}/figures/{one.name}"
    drawing = captioned(f"{path}.svg", heading(one.axis), one.title, f"{path}.rst")
    FIGURES += [drawing, f"{path}.png", f"{path}.rst"]


def deleted_outcomes(wildcards):
    """Those that are missing though what is made of them is there: Snakemake would see no need of
    them.

    Not all of them: what is missing asks for them already, and both would cost twice the planning.
    """
    if not all(map(os.path.exists, ACCOUNTING or TABLES)):
        return []
    return [path for path in outcome_files(wildcards) if not os.path.exists(path)]


def analysis_library():
    """The code behind the analysis, an input of it: a changed plot is drawn again."""
    rooms = [SCRIPTS / "sagebench" / room for room in ("analysis", "page")]
    paths = (path for room in rooms for path in room.rglob("*"))
    return sorted(str(p) for p in paths if p.suffix in {".py", ".html", ".css", ".js"})


def jobs_to_run():
    """The wildcards of the jobs that this run does, or as a dry run would do, by rule."""
    found = {}
    for job in workflow.dag.needrun_jobs(exclude_finished=False):
        found.setdefault(job.rule.name, []).append(job.wildcards)
    return found


def check_run(wanted):
    """Raises UserError for what keeps this run's jobs from being started."""
    if "trial" in wanted:
        check_decisions(study)
    if BY_SLURM and wanted.keys() & ON_DEVICES:
        make = f"make image PROFILE={Path(SITE).parent}"
        check_image(study.site.model_dump(), make)


def before_run():
    """What comes before the first job: checks of what is to be submitted, and the frozen files."""
    wanted = jobs_to_run()
    trials = [wildcards.trial for wildcards in wanted.get("trial", ())]
    submitted = not workflow.executor_plugin.common_settings.local_exec
    if submitted and not BY_SLURM:
        sys.exit(
            f"error: jobs are to be submitted, but the site of {study.site.machine} starts trials "
            "here: add --config site=PATH of the cluster's site.yaml."
        )
    # Noted in the study: the command that makes trials or the report, not a plan's, say.
    makes = trials or "report" in wanted
    try:
        if BY_SLURM and wanted.keys() & SUBMITTED:
            jobs.check_submission(
                study.site,
                folder=str(Path.cwd()),
                python=sys.executable,
                # What else Snakemake writes on the command lines of its jobs.
                texts={
                    "the path": workflow.main_snakefile,
                    "results: the path": RESULTS,
                    **{
                        f"--config {one.partition('=')[0]}:": one
                        for one in settings.config_args or ()
                    },
                },
                as_script=getattr(
                    workflow.executor_settings, "pass_command_as_script", True
                ),
            )
        check_run(wanted)
        if submitted:
            cancel_orphans(Path.cwd(), trials)
            bound_waits()
        with full_disk_as_user_error():
            freezer.write(
                trials,
                [wildcards.store for wildcards in wanted.get("store", ())],
                jobs.shell_command(sys.argv, Path.cwd()) if makes else None,
            )
            from sagebench.plan.forecast import freeze_predictions

            freeze_predictions(study, trials)
    except UserError as error:
        sys.exit(f"error: {error}")
