"""What jobs ask for, by Snakemake's names of it: nodes, CPUs, memory, minutes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from sagebench.grid.expansion import Request, Study
from sagebench.grid.site import Site, geometry, possible_ranks

CPU_JOB_CPUS = 8
CPU_JOB_WALLTIME_MIN = 240
PREFLIGHT_WALLTIME_MIN = 15
PILOTS_START_MIN, PILOT_MIN = 10, 3
"""of a job; of one pilot: its process and its container, some seconds of micro-steps, a test"""

TrialJob = Mapping[str, Any]
"""resources by Snakemake's names of them"""


def preflight_widths(site: Site) -> list[int]:
    """The numbers of ranks that show what can be wrong: one, a whole node's, two nodes'."""
    nodes = range(1, min(site.nodes, 2) + 1)
    return sorted({1, *(site.devices_per_node * count for count in nodes)})


def slurm_resources(ranks: int, site: Site) -> TrialJob:
    """What the Slurm plugin is to ask for; None is left out. Nothing where Slurm starts no ranks.

    A node that is given out whole is asked for whole, at every width: the trial's own srun then
    takes of it what the trial needs. Memory goes by CPU, so a rank has the same at every width.

    With `mpi` the command runs in the batch step and calls srun itself; for a single task the
    plugin refuses it and wraps the command in an srun of its own, in which ours overlaps.
    `tasks_per_gpu` is 0 where `tasks` is given: the plugin would ask for so many tasks a GPU.
    """
    if site.launcher == "local":
        return {}
    place = geometry(ranks, site)
    tasks = place.devices_allocated
    by_node = place.devices_per_node > 1
    return {
        "nodes": place.nodes,
        "tasks_per_node": place.devices_per_node if by_node else None,
        "tasks": tasks if tasks > 1 and not by_node else None,
        "tasks_per_gpu": 0 if tasks > 1 and not by_node else None,
        "cpus_per_task": place.cpus_per_rank,
        "mpi": "srun" if tasks > 1 else None,
        "gres": f"{site.gres}:{place.devices_per_node}" if site.gres else None,
        "mem_mb_per_cpu": place.memory_mib_per_cpu,
        "slurm_extra": shlex.join(site.sbatch_options) or None,
        "slurm_account": site.account,
        "slurm_partition": site.partition_gpu,
        "qos": site.qos,
    }


def cpu_job_resources(site: Site) -> dict[str, Any]:
    """What a job that needs no device asks for: a graph store, the image."""
    if site.launcher == "local":
        return {}
    return _given(
        {
            "runtime": within_limit(CPU_JOB_WALLTIME_MIN, site),
            "cpus_per_task": min(CPU_JOB_CPUS, site.cpus),
            "mem_mb_per_cpu": site.memory_mib_per_cpu,
            "slurm_account": site.account,
            "slurm_partition": site.partition_cpu,
            "qos": site.qos,
        }
    )


def within_limit(minutes: int, site: Site) -> int:
    """As many minutes, where the site's longest job has them."""
    return min(minutes, site.limits.walltime_max_min or minutes)


def resources_of_trials(study: Study) -> dict[str, Any]:
    """For the rule of trials: by ranks and walltime, of which there are few."""

    def key(request: Request) -> tuple[int, int]:
        return request.trial.ranks, request.walltime_min

    def runtime_min(wildcards: Any, attempt: int) -> int:
        """The first attempt asks for what was predicted, a later one for the walltime."""
        request = study.requests[wildcards.trial]
        predicted = request.runtime_min if attempt == 1 else None
        return request.walltime_min if predicted is None else predicted

    asked = {
        (ranks, minutes): {"runtime": minutes, **slurm_resources(ranks, study.site)}
        for ranks, minutes in set(map(key, study.requests.values()))
    }
    resources = _by_job(asked, lambda wildcards: key(study.requests[wildcards.trial]))
    if any(request.runtime_min is not None for request in study.requests.values()):
        resources["runtime"] = runtime_min
    return resources


def resources_of_preflights(site: Site) -> dict[str, Any]:
    """For the rule of preflights: what trials of as many ranks ask for, and less time."""
    asked = {ranks: slurm_resources(ranks, site) for ranks in possible_ranks(site)}
    resources = _by_job(asked, lambda wildcards: int(wildcards.preflight))
    limit = {"runtime": within_limit(PREFLIGHT_WALLTIME_MIN, site)}
    return {**limit, **resources} if resources else {}


def resources_of_pilots(site: Site, pilots: Callable[[], int]) -> dict[str, Any]:
    """For the job of as many pilots, one after the other: what a trial of one rank asks for. What
    the site's limit leaves out, the next job does."""

    def runtime_min(wildcards: Any) -> int:
        return within_limit(PILOTS_START_MIN + PILOT_MIN * pilots(), site)

    asked = slurm_resources(1, site)
    return {"runtime": runtime_min, **_given(asked)} if asked else {}


def _given(asked: TrialJob) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def _by_job(asked: Mapping[Any, TrialJob], key: Callable[[Any], Any]) -> dict[str, Any]:
    """A rule's resources. asked: what its jobs ask for, by what tells them apart, which is the
    `key` of their wildcards.

    One value where all ask for the same: Snakemake calls a function for every job.
    """
    first, *others = asked.values()

    def of_job(name: str) -> Callable[[Any], Any]:
        return lambda wildcards: asked[key(wildcards)][name]

    return {
        name: value if all(other[name] == value for other in others) else of_job(name)
        for name, value in first.items()
        if any(one[name] is not None for one in asked.values())
    }
