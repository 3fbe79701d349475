"""Where the ranks of a trial go: one pure function from ranks and site to nodes, CPUs, memory."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from sagebench.errors import UserError
from sagebench.grid.site import Site


@dataclass(frozen=True)
class Geometry:
    """What one trial asks for. Every node gets the same number of ranks."""

    nodes: int
    ranks_per_node: int
    cpus_per_rank: int  # the same at every width, so that widths can be compared
    memory_mib_per_cpu: int | None  # None: not asked for
    devices_per_node: int  # that the job is given, and billed for

    @property
    def devices_allocated(self) -> int:
        return self.nodes * self.devices_per_node


def geometry(ranks: int, site: Site) -> Geometry:
    """The fewest nodes for `ranks`; raises UserError where the site's nodes cannot give them."""
    nodes = -(-ranks // site.devices_per_node)
    if not fits(ranks, site):
        raise UserError(f"{ranks} ranks do not fit {site.machine}: write {fitting(ranks, site)}")
    ranks_per_node = ranks // nodes
    return Geometry(
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        cpus_per_rank=max(1, site.cpus // site.devices_per_node),
        memory_mib_per_cpu=memory_mib_per_cpu(site),
        devices_per_node=site.devices_per_node if site.whole_nodes else ranks_per_node,
    )


def memory_mib_per_cpu(site: Site) -> int | None:
    """The share of a node's memory that goes with one of its CPUs; None: not asked for."""
    if site.memory_per_node_gib is None:
        return None
    return int(site.memory_per_node_gib * 1024 / site.cpus)


def fits(ranks: int, site: Site) -> bool:
    """Whether the site can give so many: on the fewest nodes, as many on each."""
    nodes = -(-ranks // site.devices_per_node)
    return nodes <= site.nodes and ranks % nodes == 0


def possible_ranks(site: Site) -> list[int]:
    counts = range(1, site.nodes * site.devices_per_node + 1)
    return [count for count in counts if fits(count, site)]


def fitting(ranks: int, site: Site) -> str:
    """What to write instead of a number of ranks that the site cannot give."""
    near = sorted(possible_ranks(site), key=lambda count: abs(count - ranks))[:3]
    return (
        f"{' or '.join(str(count) for count in sorted(near))} "
        f"({site.nodes} x {site.devices_per_node} devices, as many ranks on every node)"
    )


def slurm_resources(ranks: int, site: Site) -> dict[str, Any]:
    """What the Slurm plugin is to ask for; a value of None is left out.

    A node that is given out whole is asked for whole, at every width: the trial's own srun then
    takes of it what the trial needs. Memory goes by CPU, so a rank has the same at every width.

    With `mpi` the command runs in the batch step and calls srun itself; for a single task the
    plugin refuses it and wraps the command in an srun of its own, in which ours overlaps.
    `tasks_per_gpu` is 0 where `tasks` is given: the plugin would ask for so many tasks a GPU.
    """
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


CPU_JOB_CPUS = 8
CPU_JOB_WALLTIME_MIN = 240


def cpu_job_resources(site: Site) -> dict[str, Any]:
    """What a job that needs no device asks for: a graph store, the image. None is left out."""
    return {
        "runtime": min(CPU_JOB_WALLTIME_MIN, site.limits.walltime_max_min or CPU_JOB_WALLTIME_MIN),
        "cpus_per_task": min(CPU_JOB_CPUS, site.cpus),
        "mem_mb_per_cpu": memory_mib_per_cpu(site),
        "slurm_account": site.account,
        "slurm_partition": site.partition_cpu,
        "qos": site.qos,
    }


PREFLIGHT_WALLTIME_MIN = 15


def preflight_walltime_min(site: Site) -> int:
    return min(PREFLIGHT_WALLTIME_MIN, site.limits.walltime_max_min or PREFLIGHT_WALLTIME_MIN)


PILOTS_START_MIN, PILOT_MIN = 10, 3
"""of a job; of one pilot: its process and its container, some seconds of micro-steps, a test"""


def pilot_walltime_min(pilots: int, site: Site) -> int:
    """For so many, one after the other; what the site's limit leaves out, the next job does."""
    wanted = PILOTS_START_MIN + PILOT_MIN * pilots
    return min(wanted, site.limits.walltime_max_min or wanted)


def preflight_widths(site: Site) -> list[int]:
    """The numbers of ranks that show what can be wrong: one, a whole node's, two nodes'."""
    nodes = range(1, min(site.nodes, 2) + 1)
    return sorted({1, *(site.devices_per_node * count for count in nodes)})
