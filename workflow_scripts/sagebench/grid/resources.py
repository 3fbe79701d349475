"""Where the ranks of a trial go: one pure function from ranks and site to nodes, CPUs, memory."""

from __future__ import annotations

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
    memory_mib_per_node: int | None  # None: not asked for
    devices_allocated: int  # over all nodes: what the job is billed for

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node


def geometry(ranks: int, site: Site) -> Geometry:
    """The fewest nodes for `ranks`; raises UserError where the site's nodes cannot give them."""
    nodes = -(-ranks // site.devices_per_node)
    if nodes > site.nodes or ranks % nodes:
        raise UserError(f"{ranks} ranks do not fit {site.machine}: write {fitting(ranks, site)}")
    ranks_per_node = ranks // nodes
    memory_mib = None
    if site.memory_per_node_gib is not None:
        share = 1.0 if site.whole_nodes else ranks_per_node / site.devices_per_node
        memory_mib = int(site.memory_per_node_gib * 1024 * share)
    return Geometry(
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        cpus_per_rank=max(1, site.cpus // site.devices_per_node),
        memory_mib_per_node=memory_mib,
        devices_allocated=nodes * site.devices_per_node if site.whole_nodes else ranks,
    )


def memory_mib_per_cpu(site: Site) -> int | None:
    """The share of a node's memory that goes with one of its CPUs; None: not asked for."""
    if site.memory_per_node_gib is None:
        return None
    return int(site.memory_per_node_gib * 1024 / site.cpus)


def fitting(ranks: int, site: Site) -> str:
    """What to write instead of a number of ranks that the site cannot give."""
    most = site.nodes * site.devices_per_node
    counts = [count for count in range(1, most + 1) if _fits(count, site)]
    near = sorted(counts, key=lambda count: abs(count - ranks))[:3]
    return (
        f"{' or '.join(str(count) for count in sorted(near))} "
        f"({site.nodes} x {site.devices_per_node} devices, as many ranks on every node)"
    )


def _fits(ranks: int, site: Site) -> bool:
    return ranks % -(-ranks // site.devices_per_node) == 0


def slurm_resources(ranks: int, site: Site) -> dict[str, Any]:
    """What the Slurm plugin is to ask for; a value of None is left out.

    A node that is given out whole is asked for whole, at every width: the trial's own srun then
    takes of it what the trial needs, and every rank sees all of its node's GPUs, as NCCL's
    peer-to-peer copies want it. Memory goes by CPU, so a rank has the same at every width.

    With `mpi` the command runs in the batch step and calls srun itself; for a single task the
    plugin refuses it and wraps the command in an srun of its own. `tasks` is not among these: with
    it the plugin adds --ntasks-per-gpu, and starts too many.
    """
    place = geometry(ranks, site)
    gpus = site.device == "cuda"
    tasks_per_node = site.devices_per_node if site.whole_nodes else place.ranks_per_node
    return {
        "nodes": place.nodes,
        "tasks_per_node": tasks_per_node,
        "cpus_per_task": place.cpus_per_rank,
        "mpi": "srun" if tasks_per_node > 1 else None,
        "gres": f"gpu:{site.devices_per_node}" if gpus and site.whole_nodes else None,
        "gpu": place.ranks if gpus and not site.whole_nodes else None,
        "mem_mb_per_cpu": memory_mib_per_cpu(site),
        "slurm_account": site.account,
        "slurm_partition": site.partition_gpu if gpus else site.partition_cpu,
        "qos": site.qos,
    }
