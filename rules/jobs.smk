# What jobs wait for and what they ask for, a site's way. No rules here.
import inspect

from sagebench.grid.environment import run_began_unix_s
from sagebench.grid.resources import (
    cpu_job_resources,
    pilot_walltime_min,
    preflight_walltime_min,
    slurm_resources,
)
from sagebench.launch.image import is_current
from sagebench.pilot.work import missing_of


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


# Stands for the container image in the flow: by another name in every run, as an earlier run's file
# tells nothing of an image that may be lost or out of date by now. A job has its run's name.
IMAGE_BUILT = f".snakemake/sagebench/image-{run_began_unix_s()}.built"


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


def pilot_runtime(wildcards):
    """Minutes for all pilots that are missing, in one job."""
    return pilot_walltime_min(len(missing_of(study)), study.site)


def pilot_resources():
    """What the job of the pilots asks for: what a trial of one rank does."""
    if study.site.launcher != "slurm":
        return {}
    asked = slurm_resources(1, study.site)
    asked = {name: value for name, value in asked.items() if value is not None}
    return {"runtime": pilot_runtime, **asked}


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
