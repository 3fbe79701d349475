# What jobs wait for and what they ask for, a site's way. No rules here.

from sagebench.grid.environment import run_began_unix_s
from sagebench.grid.resources import (
    cpu_job_resources,
    pilot_walltime_min,
    possible_ranks,
    preflight_walltime_min,
    slurm_resources,
)
from sagebench.launch.image import is_current
from sagebench.pilot.work import missing_of

BY_SLURM = study.site.launcher == "slurm"
LOST_STORES = {
    store
    for store in study.stores
    if workflow.is_main_process and not Path(manifest_path(RESULTS, store)).exists()
}


def finished(trial_id):
    """Whether the trial has an outcome."""
    return Path(outcome_path(RESULTS, trial_id)).exists()


def trial_store(wildcards):
    """The manifest of a trial's store.

    A rebuilt store must not rerun what was measured on the same data: its age does not count. Of a
    lost one `ancient` knows nothing: a finished trial does without.
    """
    store = requested(wildcards.trial).store
    if store in LOST_STORES and finished(wildcards.trial):
        return []
    return ancient(manifest_path(RESULTS, store))


# Stands for the container image in the flow: by another name in every run, as an earlier run's file
# tells nothing of an image that may be lost or out of date by now. A job has its run's name.
IMAGE_BUILT = f".snakemake/sagebench/image-{run_began_unix_s()}.built"


def image_to_build():
    """What a job waits for where a cluster's image is lost, or was built from something else."""
    site = study.site
    if not workflow.is_main_process or not BY_SLURM:
        return []
    if site.image is None or site.image_definition is None:
        return []
    definition = Path(site.image_definition)
    current = is_current(Path(site.image), definition, site.image_build_options)
    return [] if current else [IMAGE_BUILT]


IMAGE = image_to_build()


def trial_image(wildcards):
    """A finished trial does without an image: to Snakemake a missing input is one to run for."""
    return [] if IMAGE and finished(wildcards.trial) else IMAGE


def by_job(asked, key):
    """What jobs ask for, by resource. asked: by what tells them apart, which is the `key` of their
    wildcards.

    One value where all ask for the same: Snakemake calls a function for every job.
    """
    first, *others = asked.values()

    def of_job(name):
        return lambda wildcards: asked[key(wildcards)][name]

    return {
        name: value if all(other[name] == value for other in others) else of_job(name)
        for name, value in first.items()
        if any(one[name] is not None for one in asked.values())
    }


def trial_key(wildcards):
    request = requested(wildcards.trial)
    return request.trial.ranks, request.walltime_min


def trial_resources():
    """What a trial asks for."""
    requests = study.requests.values()
    asked = {}  # there are few numbers of ranks and walltimes
    for ranks, walltime_min in {
        (one.trial.ranks, one.walltime_min) for one in requests
    }:
        by_slurm = slurm_resources(ranks, study.site) if BY_SLURM else {}
        asked[ranks, walltime_min] = {"runtime": walltime_min, **by_slurm}
    resources = by_job(asked, trial_key)
    if any(request.runtime_min is not None for request in requests):
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
    if not BY_SLURM:
        return {}
    runtime = preflight_walltime_min(study.site)
    asked = {
        ranks: {"runtime": runtime, **slurm_resources(ranks, study.site)}
        for ranks in possible_ranks(study.site)
    }
    return by_job(asked, lambda wildcards: int(wildcards.preflight))


def pilot_runtime(wildcards):
    """Minutes for all pilots that are missing, in one job."""
    return pilot_walltime_min(len(missing_of(study)), study.site)


def pilot_resources():
    """What the job of the pilots asks for: what a trial of one rank does."""
    if not BY_SLURM:
        return {}
    asked = {"runtime": pilot_runtime, **slurm_resources(1, study.site)}
    return by_job({1: asked}, None)


def cpu_resources():
    """What the jobs of a cluster that need no device ask for."""
    return by_job({1: cpu_job_resources(study.site)}, None) if BY_SLURM else {}


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
