# What the rules share: the study, and what comes before its first job. No rules here.
import atexit
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(os.path.relpath(workflow.basedir))
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS.absolute()))

from sagebench.analysis.figures import declared, heading
from sagebench.errors import UserError, full_disk_as_user_error
from sagebench.grid.freeze import (
    DEFAULT_CONFIGURATION,
    DEFAULT_SITE,
    Freezer,
    load_study,
    manifest_path,
    outcome_path,
    store_spec_path,
    load_frozen,
    trial_path,
)
from sagebench.grid.resources import (
    cpu_job_resources,
    resources_of_pilots,
    resources_of_preflights,
    resources_of_trials,
)
from sagebench.grid.submission import (
    announce_study,
    announced_study,
    check_submission,
    lead_commands,
    profile_site,
    shell_command,
)
from sagebench.launch.container import check_image
from sagebench.pilot.records import missing_of
from sagebench.plan.decisions import check_decisions, guarded
from sagebench.slurm.snakemake import bound_waits, cancel_orphans, hold_folder, keep_finished

lead_commands(SCRIPTS)


def site_path():
    """The site.yaml of this run: named by --config, or beside the profile."""
    named = workflow.config_settings.config.get("site")
    return named or profile_site(sys.argv) or ROOT / DEFAULT_SITE


def read_study():
    """The study as configured; in a job of a run, the study as that run froze it."""
    if not workflow.is_main_process and announced_study():
        return load_frozen(announced_study())
    overrides = dict(workflow.config_settings.config)
    overrides.pop("site", None)
    files = workflow.overwrite_configfiles or [ROOT / DEFAULT_CONFIGURATION]
    try:
        return guarded(load_study(files, site_path(), overrides))
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
freezer = Freezer(study)
if workflow.is_main_process:
    announce_study(freezer.run_path)
    folder_in_use = hold_folder(Path.cwd())  # until this process ends
    keep_finished(Path.cwd())
    atexit.register(tell_refusal)

RESULTS = study.results
STUDY = f"{RESULTS}/{study.name}"
BY_SLURM = study.site.launcher == "slurm"
CPU_JOB = cpu_job_resources(study.site)
ON_DEVICES = {"trial", "pilot", "preflight"}
SUBMITTED = {*ON_DEVICES, "store", "image", "probe"}
AXES = list(dict.fromkeys(experiment.axis for experiment in study.experiments))

# What Slurm's accounting says of the jobs; nothing without Slurm.
ACCOUNTING = [f"{STUDY}/accounting.csv"] if BY_SLURM else []
WITH_ACCOUNTING = ["--accounting", *ACCOUNTING] if BY_SLURM else []


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


def trial_threads():
    """On one machine every core, so that nothing runs beside a trial that is being timed.

    On a cluster the resource cpus_per_task says it.
    """
    if BY_SLURM:
        return 1
    try:
        return workflow.cores
    except WorkflowError:  # none needed, e.g. for --lint
        return 1


def captioned(path, category, label, caption=None):
    """A file for Snakemake's own report, with report/<its name>.rst as the caption unless given."""
    caption = Path(caption or ROOT / "report" / f"{Path(path).stem}.rst").absolute()
    return report(path, caption=caption, category=category, labels={"what": label})


TABLES = [
    f"{STUDY}/tables/{table}.{kind}"
    for table in ("trials", "epochs", "not_run")
    for kind in ("csv", "parquet")
]
TABLES[0] = captioned(TABLES[0], "Tables", "trials")
REPORT = captioned(f"{STUDY}/report.html", "Report", "report")


def figure_files():
    """Every figure as SVG, PNG and caption; Snakemake's own report shows the SVGs."""
    files = []
    for one in declared(AXES):
        path = f"{STUDY}/figures/{one.name}"
        drawing = captioned(f"{path}.svg", heading(one.axis), one.title, f"{path}.rst")
        files += [drawing, f"{path}.png", f"{path}.rst"]
    return files


def deleted_outcomes(wildcards):
    """Those that are missing though what is made of them is there: Snakemake would see no need of
    them.

    Not all of them: what is missing asks for them already, and both would cost twice the planning.
    """
    if not all(map(os.path.exists, ACCOUNTING or TABLES)):
        return []
    return [path for path in outcome_files(wildcards) if not os.path.exists(path)]


def script(name):
    return str(SCRIPTS / name)


def analysis_library(*endings):
    """The code behind the analysis, an input of it: a changed plot is drawn again."""
    rooms = [SCRIPTS / "sagebench" / room for room in ("analysis", "page")]
    paths = (path for room in rooms for path in room.rglob("*"))
    return sorted(str(path) for path in paths if path.suffix in {".py", *endings})


def jobs_to_run():
    """The wildcards of the jobs that this run does, or as a dry run would do, by rule."""
    jobs = {}
    for job in workflow.dag.needrun_jobs(exclude_finished=False):
        jobs.setdefault(job.rule.name, []).append(job.wildcards)
    return jobs


def check_run(jobs):
    """Raises UserError for what keeps this run's jobs from being started."""
    if "trial" in jobs:
        check_decisions(study)
    if BY_SLURM and jobs.keys() & ON_DEVICES:
        make = f"make image PROFILE={Path(site_path()).parent}"
        check_image(study.site.model_dump(), make)


def before_run():
    """What comes before the first job: checks of what is to be submitted, and the frozen files."""
    jobs = jobs_to_run()
    trials = [wildcards.trial for wildcards in jobs.get("trial", ())]
    given = workflow.config_settings.config_args or []
    submitted = not workflow.executor_plugin.common_settings.local_exec
    if submitted and not BY_SLURM:
        sys.exit(
            f"error: jobs are to be submitted, but the site of {study.site.machine} starts trials "
            "here: add --config site=PATH of the cluster's site.yaml."
        )
    # The command that was called, where it makes trials or the report, and not a plan, say.
    noted = trials or "report" in jobs
    try:
        if BY_SLURM and jobs.keys() & SUBMITTED:
            check_submission(
                study.site,
                folder=str(Path.cwd()),
                python=sys.executable,
                # What else Snakemake writes on the command lines of its jobs.
                texts={
                    "the path": workflow.main_snakefile,
                    "results: the path": RESULTS,
                    **{f"--config {one.partition('=')[0]}:": one for one in given},
                },
                as_script=getattr(
                    workflow.executor_settings, "pass_command_as_script", True
                ),
            )
        check_run(jobs)
        if submitted:
            cancel_orphans(Path.cwd(), trials)
            bound_waits()
        with full_disk_as_user_error():
            freezer.write(
                trials,
                [wildcards.store for wildcards in jobs.get("store", ())],
                shell_command(sys.argv, Path.cwd()) if noted else None,
            )
            from sagebench.plan.forecast import freeze_predictions

            freeze_predictions(study, trials)
    except UserError as error:
        sys.exit(f"error: {error}")
