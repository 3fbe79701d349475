"""Jobs as Snakemake submits them: the resources that they ask for, by Snakemake's names (nodes,
CPUs, memory, minutes), and what their command lines must not hold."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sagebench.errors import UserError
from sagebench.grid.expansion import Request, Study
from sagebench.grid.site import Site, geometry, possible_ranks

CPU_JOB_CPUS = 8
CPU_JOB_WALLTIME_MIN = 240
PREFLIGHT_WALLTIME_MIN = 15
PILOTS_START_MIN, PILOT_MIN = 10, 3
"""of a job; of one pilot: its process and its container, some seconds of micro-steps, a test"""
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@%=-]+")


def preflight_widths(site: Site) -> list[int]:
    """The numbers of ranks that show what can be wrong: one, a whole node's, two nodes'."""
    nodes = range(1, min(site.nodes, 2) + 1)
    return sorted({1, *(site.devices_per_node * count for count in nodes)})


def slurm_resources(ranks: int, site: Site) -> dict[str, Any]:
    """Resources for the Slurm plugin; None is left out. Empty where Slurm starts no ranks.

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
    """Resources of a job that needs no device: a graph store, the image."""
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
    """Walltime of as many minutes, cut to the site's longest job."""
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


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def _by_job(asked: Mapping[Any, Mapping[str, Any]], key: Callable[[Any], Any]) -> dict[str, Any]:
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


def profile_site(arguments: Sequence[str]) -> str | None:
    """The site.yaml beside the profile that Snakemake was called with, where there is one.

    Not an entry of the profile's `config:`, which any --config on the command line replaces: the
    trials of a cluster would silently become trials of this machine.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", default=os.environ.get("SNAKEMAKE_PROFILE"))
    profile = parser.parse_known_args(arguments)[0].profile
    if not profile:
        return None
    folder = Path(profile).parent if Path(profile).is_file() else Path(profile)
    site = folder / "site.yaml"
    return str(site) if site.is_file() else None


def shell_command(arguments: Sequence[str], folder: Path) -> str:
    """Snakemake's command line, its sys.argv, as one types it in `folder`.

    The program is `snakemake` by its path below `folder`, as `make` calls it, which needs no
    activated environment; the bare name where it lies elsewhere, also for `python -m snakemake`.
    """
    path = Path(arguments[0]).absolute()
    if path.name != "snakemake":  # the module's own file
        path = Path(sys.executable).with_name("snakemake")
    name = str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
    profile = os.environ.get("SNAKEMAKE_PROFILE")
    before = f"SNAKEMAKE_PROFILE={shlex.quote(profile)} " if profile else ""
    return before + shlex.join([name, *arguments[1:]])


def check_filled_in(site: Site) -> None:
    """Raises UserError where a value of the site still waits for its user."""
    if waiting := site.placeholders():
        raise UserError(
            f"the site of {site.machine} still holds the placeholder EDIT in "
            f"{', '.join(waiting)}: write your own values in its profile's site.yaml"
        )


def check_submission(
    site: Site, folder: str, python: str, texts: Mapping[str, str], *, as_script: bool = True
) -> None:
    """Raises UserError for what cannot be submitted: Snakemake hands its own command line to a
    shell on the node, and quotes it as Python would.

    folder: where Snakemake was called. python: the interpreter that runs it. texts: whatever else
    stands on the command lines of its jobs, by what it is. as_script: the plugin passes these lines
    as a script, not in a wrapped string.
    """
    check_filled_in(site)
    if "%" in folder:
        raise UserError(
            f"the folder {folder} has a % in its name, which Slurm reads as a pattern in the names "
            "of its log files: call Snakemake in a folder without one"
        )
    if not PLAIN_PATH.fullmatch(python):
        raise UserError(
            f"Snakemake hands the path of its Python, {python}, to a shell without quotes: make "
            "the environment where the path is letters, digits and / . _ - alone, e.g. with "
            'VENV="$HOME/sagebench-venv" behind make'
        )
    for what, text in {"the folder": folder, **texts}.items():
        if not survives_shell(text, as_script):
            raise UserError(
                f"{what} {text!r} cannot be handed to a Slurm job as it is: write it without ' \\ "
                "and unprintable characters, and $ ` only with slurm-pass-command-as-script: true "
                "in the profile's config.yaml"
            )


def survives_shell(text: str, as_script: bool = True) -> bool:
    """Whether repr(text), which is how Snakemake quotes, is `text` to a shell and nothing more.

    A text that looks quoted is not quoted again.
    """
    unsafe = r"""^"|['\\]""" if as_script else r"""^"|['\\$`]"""
    return text.isprintable() and not re.search(unsafe, text)
