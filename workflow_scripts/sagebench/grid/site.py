"""The site: what the machine has, how its jobs are started, and where the ranks of a trial go."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from sagebench.errors import UserError
from sagebench.grid.configuration import read_yaml
from sagebench.grid.trial import CHOICES
from sagebench.grid.values import (
    FilePath,
    Flag,
    Name,
    Strict,
    Text,
    checked,
    choice,
    key,
    matching,
    number,
    wanted,
    whole,
    whole_sentence,
)

Variable: Any = matching("^[A-Za-z_][A-Za-z0-9_]*$", "a variable's name, e.g. NCCL_SOCKET_IFNAME")
# Snakemake's Slurm plugin hands these to a shell, some of them without quotes.
SlurmName: Any = matching(r"^[A-Za-z0-9][A-Za-z0-9_.,:+-]*$", "a name as Slurm knows it, e.g. gpu")
Option: Any = matching(
    r"^--?[A-Za-z][^\x00-\x1f]*$", "one option in one text, e.g. --hint=nomultithread"
)

# Lmod hands these to a shell.
ModuleName: Any = matching(
    r"^[A-Za-z0-9][A-Za-z0-9_./+:-]*$", "a module's name, e.g. Apptainer/1.3.6-GCCcore-13.3.0"
)

# Those of sbatch that the site's and the study's keys ask for; the plugin refuses only the long.
ASKED_FOR = re.compile(
    r"-[ApqGNnct]|--(account|partition|qos|gpus|gres|nodes|ntasks|cpus|mem|time)\b"
)


def _further(option: str) -> str:
    if ASKED_FOR.match(option):
        raise wanted("an option that no key of the site or the study asks for, e.g. --exclude=n1")
    return option


BatchOption = Annotated[Option, AfterValidator(_further)]


class Limits(Strict):
    """Limits of the site."""

    max_submitted_jobs: whole(1, 100, none=True) = key(None, "jobs of one account")
    walltime_max_min: whole(1, 2880, none=True) = key(None, "minutes of one job")
    max_devices: whole(1, 200, none=True) = key(None, "devices of one account's running jobs")
    node_hours: number(1000, gt=0, none=True) = key(None, "node-hours that the account has left")


class Site(Strict):
    """One machine: a workstation or a cluster's partition."""

    machine: Name = key(..., "its label; part of every trial's identity")
    device: choice(*CHOICES["device"]) = key(..., "what a rank computes on")
    nodes: whole(1, 8) = key(1, "the most nodes one trial may have")
    devices_per_node: whole(1, 4) = key(..., "the most ranks of one node")
    card: Text | None = key(None, "the GPU, where none was measured, e.g. A100-40GB")
    cpus_per_node: whole(1, 64, none=True) = key(None, "cores; null: counted")
    memory_per_node_gib: number(480, gt=0, none=True) = key(None, "null: not asked for")
    whole_nodes: Flag = key(False, "true: a job is given, and billed, all of its nodes")
    launcher: choice("local", "slurm") = key("local", "what starts the ranks")
    account: SlurmName | None = key(None, "Slurm account")
    qos: SlurmName | None = key(None, "Slurm QOS of the jobs")
    partition_gpu: SlurmName | None = key(None, "Slurm partition of the trials")
    partition_cpu: SlurmName | None = key(None, "Slurm partition of data and image")
    gres: SlurmName | None = key(None, "the devices, e.g. gpu or gpu:a100; null: none asked for")
    sbatch_options: list[BatchOption] = key([], "further options of a trial's sbatch")
    srun_options: list[Option] = key([], "further options of a trial's srun")
    image: FilePath | None = key(None, "the container image; null: the ranks run without one")
    image_definition: FilePath | None = key(None, "its source; null: it is brought, not built")
    image_build_options: list[Option] = key([], "options of apptainer build")
    apptainer: FilePath = key("apptainer", "the command")
    container_options: list[Option] = key([], "options of apptainer exec")
    modules: list[ModuleName] = key([], "modules loaded before Apptainer is called")
    binds: list[FilePath] = key([], "folders that the container sees")
    environment: dict[Variable, Text] = key({}, "variables of every rank, e.g. NCCL's")
    expandable_segments: Flag = key(False, "true: torch's memory segments on a GPU can grow")
    limits: Limits = Field(default_factory=Limits, description="what the site lets one have")

    @model_validator(mode="after")
    def _cores_of_a_node(self) -> Site:
        if self.launcher == "slurm" and self.cpus_per_node is None:
            raise whole_sentence(
                "cpus_per_node is missing: write the cores of one node, e.g. cpus_per_node: 64."
            )
        return self

    @property
    def cpus(self) -> int:
        """Cores of one node: the site's word, or those that this process may use."""
        if self.cpus_per_node is not None:
            return self.cpus_per_node
        return len(os.sched_getaffinity(0))

    @property
    def memory_mib_per_cpu(self) -> int | None:
        """The share of a node's memory that goes with one of its CPUs; None: not asked for."""
        if self.memory_per_node_gib is None:
            return None
        return int(self.memory_per_node_gib * 1024 / self.cpus)

    def placeholders(self) -> list[str]:
        """The keys whose values still hold the word EDIT, for their user to write."""
        values = self.model_dump(mode="json").items()
        # Not as a part of another word: EDITH is a name.
        word = re.compile(r"(?<![A-Z])EDIT(?![A-Z])")
        return [key for key, value in values if word.search(json.dumps(value))]


def read_site(path: str | os.PathLike[str]) -> Site:
    """The site in a site.yaml; raises UserError that names the file, the key and what to write."""
    if not Path(path).is_file():
        raise UserError(
            f"site is {str(path)!r}, which is no file: write the path of a site.yaml, "
            "e.g. profiles/local/site.yaml."
        )
    return validate_site(read_yaml(path), root=f"{path}: ")


def validate_site(values: Mapping[str, Any], root: str = "") -> Site:
    return checked(Site, values, root=root)


@dataclass(frozen=True)
class Geometry:
    """Resources of one trial. Every node gets the same number of ranks."""

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
        memory_mib_per_cpu=site.memory_mib_per_cpu,
        devices_per_node=site.devices_per_node if site.whole_nodes else ranks_per_node,
    )


def fits(ranks: int, site: Site) -> bool:
    """Whether the site can give so many: on the fewest nodes, as many on each."""
    nodes = -(-ranks // site.devices_per_node)
    return nodes <= site.nodes and ranks % nodes == 0


def possible_ranks(site: Site) -> list[int]:
    counts = range(1, site.nodes * site.devices_per_node + 1)
    return [count for count in counts if fits(count, site)]


def fitting(ranks: int, site: Site) -> str:
    """Advice what to write instead of a number of ranks that the site cannot give."""
    near = sorted(possible_ranks(site), key=lambda count: abs(count - ranks))[:3]
    return (
        f"{' or '.join(str(count) for count in sorted(near))} "
        f"({site.nodes} x {site.devices_per_node} devices, as many ranks on every node)"
    )
