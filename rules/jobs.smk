# What jobs wait for and what they ask for, a site's way. No rules here.

from sagebench.grid.resources import (
    cpu_job_resources,
    pilot_walltime_min,
    possible_ranks,
    preflight_walltime_min,
    slurm_resources,
)
from sagebench.pilot.records import missing_of

BY_SLURM = study.site.launcher == "slurm"


def trial_store(wildcards):
    """The manifest of a trial's store: none of a finished trial whose store is lost.

    A rebuilt store must not rerun what was measured on the same data: its age does not count.
    """
    manifest = manifest_path(RESULTS, requested(wildcards.trial).store)
    outcome = outcome_path(RESULTS, wildcards.trial)
    lost = os.path.exists(outcome) and not os.path.exists(manifest)
    return [] if lost else ancient(manifest)


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
