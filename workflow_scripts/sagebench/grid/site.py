"""The site: what the machine has and how its jobs are started. Nothing of the science."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from sagebench.errors import UserError
from sagebench.grid.configuration import Strict, checked
from sagebench.grid.files import read_yaml
from sagebench.grid.values import (
    FilePath,
    Flag,
    Name,
    Text,
    choice,
    matching,
    number,
    optional,
    whole,
)

Variable = matching("^[A-Za-z_][A-Za-z0-9_]*$", "a variable's name, e.g. NCCL_SOCKET_IFNAME")


class Limits(Strict):
    """What the site lets one have."""

    max_submitted_jobs: whole(1, 100) | None = Field(None, description="jobs of one account")
    walltime_max_min: whole(1, 2880) | None = Field(None, description="minutes of one job")


class Site(Strict):
    """One machine: a workstation or a cluster's partition."""

    machine: Name = Field(description="its label; part of every trial's identity")
    device: choice("cpu", "cuda") = Field(description="what a rank computes on")
    nodes: whole(1, 8) = Field(1, description="the most nodes one trial may have")
    devices_per_node: whole(1, 4) = Field(description="the most ranks of one node")
    cpus_per_node: optional(whole(1, 64), 64) = Field(None, description="cores; null: counted")
    memory_per_node_gib: optional(number(480, above=0), 480) = Field(
        None, description="GiB of one node's memory; null: not asked for"
    )
    whole_nodes: Flag = Field(
        False, description="true: a job is given, and billed, all of its nodes"
    )
    launcher: choice("local", "slurm") = Field("local", description="what starts the ranks")
    account: Text | None = Field(None, description="Slurm account")
    qos: Text | None = Field(None, description="Slurm QOS of the trials")
    partition_gpu: Text | None = Field(None, description="Slurm partition of the trials")
    partition_cpu: Text | None = Field(None, description="Slurm partition of data and image")
    modules: list[Text] = Field([], description="modules loaded before Apptainer is called")
    binds: list[FilePath] = Field([], description="folders that the container sees")
    environment: dict[Variable, Text] = Field(
        {}, description="variables of every rank, e.g. NCCL's"
    )
    image: FilePath | None = Field(None, description="the container image; null: none")
    limits: Limits = Field(default_factory=Limits, description="what the site lets one have")

    @property
    def cpus(self) -> int:
        """Cores of one node: the site's word, or those that this process may use."""
        if self.cpus_per_node is not None:
            return self.cpus_per_node
        return len(os.sched_getaffinity(0))


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
