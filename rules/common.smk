# What the rules share: the study, and the names of its files. No rules here.
import atexit
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(os.path.relpath(workflow.basedir))
SCRIPTS = ROOT / "workflow_scripts"
sys.path.insert(0, str(SCRIPTS.absolute()))

from sagebench.analysis.figures import declared, heading
from sagebench.cluster.orphans import cancel_orphans
from sagebench.cluster.plugin_waits import bound_waits
from sagebench.cluster.stale_lock import hold_folder, keep_finished
from sagebench.errors import UserError, full_disk_told
from sagebench.grid.environment import (
    announce_study,
    announced_study,
    lead_commands,
    profile_site,
    typed_command,
)
from sagebench.grid.freeze import (
    DEFAULT_CONFIGURATION,
    DEFAULT_SITE,
    Freezer,
    load_study,
    manifest_path,
    outcome_path,
    store_spec_path,
    thaw,
    trial_path,
)
from sagebench.grid.submission import check_submission
from sagebench.launch.image import check_image
from sagebench.plan.decisions import check_decisions, guarded

lead_commands(SCRIPTS)


def site_path():
    """The site.yaml of this run: named by --config, or beside the profile."""
    named = workflow.config_settings.config.get("site")
    return named or profile_site(sys.argv) or ROOT / DEFAULT_SITE


def read_study():
    """The study as configured; in a job of a run, the study as that run froze it."""
    if not workflow.is_main_process and announced_study():
        return thaw(announced_study())
    overrides = dict(workflow.config_settings.config)
    overrides.pop("site", None)
    files = workflow.overwrite_configfiles or [ROOT / DEFAULT_CONFIGURATION]
    try:
        study = load_study(files, site_path(), overrides)
    except UserError as error:
        # A WorkflowError would bury the sentence under line numbers.
        sys.exit(f"error: {error}")
    return guarded(study)


def tell_refusal():
    """At the end of a dry run, which only then is known to be one."""
    if workflow.dryrun and workflow.dag is not None:
        try:
            check_run()
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
AXES = list(dict.fromkeys(experiment.axis for experiment in study.experiments))

SUBMITTED = {"trial", "store", "image", "probe", "pilot", "preflight"}


def outcome_files(wildcards):
    """A function, so that the paths of a large study are made only for the rules that run."""
    return [
        outcome_path(RESULTS, trial_id)
        for trial_id in study.requests
        if trial_id not in study.skipped
    ]


def deleted_outcomes(wildcards):
    """Those that are missing though what is made of them is there: Snakemake would see no need of
    them.

    Not all of them: what is missing asks for them already, and both would cost twice the planning.
    """
    if not all(map(os.path.exists, ACCOUNTING or table_files())):
        return []
    return [path for path in outcome_files(wildcards) if not os.path.exists(path)]


def captioned(path, category, label, caption=None):
    """A file for Snakemake's own report, with report/<its name>.rst as the caption unless given."""
    caption = Path(caption or ROOT / "report" / f"{Path(path).stem}.rst").absolute()
    return report(path, caption=caption, category=category, labels={"what": label})


def table_files():
    trials, *others = (
        f"{STUDY}/tables/{table}.{kind}"
        for table in ("trials", "epochs", "not_run")
        for kind in ("csv", "parquet")
    )
    return [captioned(trials, "Tables", "trials"), *others]


def figure_files():
    """Every figure as SVG, PNG and caption; Snakemake's own report shows the SVGs."""
    files = []
    for one in declared(AXES):
        path = f"{STUDY}/figures/{one.name}"
        drawing = captioned(f"{path}.svg", heading(one.axis), one.title, f"{path}.rst")
        files += [drawing, f"{path}.png", f"{path}.rst"]
    return files


def report_file():
    return captioned(f"{STUDY}/report.html", "Report", "report")


def script(name):
    return str(SCRIPTS / name)


def analysis_library(*patterns):
    """The code behind the analysis, an input of it: a changed plot is drawn again."""
    rooms = [SCRIPTS / "sagebench" / room for room in ("analysis", "page")]
    return sorted(
        str(path)
        for room in rooms
        for pattern in patterns or ["*.py"]
        for path in room.rglob(pattern)
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


def rules_to_run():
    """The names of the rules that have jobs to run, or, in a dry run, would have."""
    jobs = workflow.dag.needrun_jobs(exclude_finished=False)
    return {job.rule.name for job in jobs}


def check_run():
    """Raises UserError for what keeps this run's jobs from being started."""
    rules = rules_to_run()
    if "trial" in rules:
        check_decisions(study)
    if study.site.launcher == "slurm" and rules & {"trial", "pilot", "preflight"}:
        make = f"make image PROFILE={Path(site_path()).parent}"
        check_image(study.site.model_dump(), make)


def before_run():
    """What comes before the first job: checks of what is to be submitted, and the frozen files."""
    trials, stores = to_run("trial"), to_run("store")
    submitted = not workflow.executor_plugin.common_settings.local_exec
    if study.site.launcher == "local" and submitted:
        sys.exit(
            f"error: jobs are to be submitted, but the site of {study.site.machine} starts trials "
            "here: add --config site=PATH of the cluster's site.yaml."
        )
    try:
        if study.site.launcher == "slurm" and rules_to_run() & SUBMITTED:
            check_submission(
                study.site,
                folder=str(Path.cwd()),
                python=sys.executable,
                texts=texts_of_jobs(),
                as_script=getattr(
                    workflow.executor_settings, "pass_command_as_script", True
                ),
            )
        check_run()
        if submitted:
            cancel_orphans(Path.cwd(), trials)
            bound_waits()
        with full_disk_told():
            freezer.write(trials, stores, command_to_note(trials))
            from sagebench.plan.record import freeze_predictions

            freeze_predictions(study, trials)
    except UserError as error:
        sys.exit(f"error: {error}")


def command_to_note(trials):
    """The command that was called, where it makes trials or the report, and not a plan, say."""
    if trials or "report" in rules_to_run():
        return typed_command(sys.argv, Path.cwd())
    return None


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
