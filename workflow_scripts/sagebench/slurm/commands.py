"""Slurm's commands: asked, with a time limit; squeue's jobs; srun's options."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOR_PEOPLE = ("SQUEUE_", "SACCT_")
"""variables with which users change what these commands print"""
# The folder last: all that may stand in it is ours, and a trial's id holds no separator.
QUEUE_FORMAT = "%i|%T|%k|%r|%Z"
QUEUE_LIMIT_S = 30.0
COMMENT = "rule_trial_wildcards_"
"""what Snakemake's Slurm plugin notes as the comment of a trial's job, before the trial's id"""


class NoAnswer(Exception):
    """Slurm did not answer; the text says why."""


def ask(command: Sequence[str], limit_s: float) -> str:
    """Standard output of a Slurm command, times in UTC; raises NoAnswer."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOR_PEOPLE)}
    environment |= {"TZ": "UTC0", "SLURM_TIME_FORMAT": "standard"}
    name = command[0]
    try:
        finished = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
        )
    except FileNotFoundError:
        raise NoAnswer(f"{name} is not installed here") from None
    except OSError as error:
        raise NoAnswer(f"{name} cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{name} did not answer within {limit_s:.0f} s") from None
    if finished.returncode != 0:
        said = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise NoAnswer(f"{name} failed: {said[-1].removeprefix(f'{name}: ')}")
    return finished.stdout


@dataclass(frozen=True)
class Job:
    """state, reason: Slurm's words, e.g. PENDING and Priority. trial_id: "" for other jobs."""

    job_id: str
    state: str
    reason: str
    folder: str
    trial_id: str

    @property
    def waits(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


def queued_jobs(user_ids: Iterable[int]) -> list[Job]:
    """The jobs of these users that have not ended; raises NoAnswer."""
    users = ",".join(map(str, sorted(set(user_ids))))
    command = ["squeue", "--noheader", "--user", users, "--format", QUEUE_FORMAT]
    return parse_queue(ask(command, QUEUE_LIMIT_S))


def parse_queue(text: str) -> list[Job]:
    found = []
    for line in text.splitlines():
        parts = line.split("|", 4)
        if len(parts) == 5:
            job_id, state, comment, reason, folder = parts
            trial_id = comment.removeprefix(COMMENT) if comment.startswith(COMMENT) else ""
            found.append(Job(job_id, state, reason, folder, trial_id))
    return found


def of_trials(found: Iterable[Job], folder: Path) -> list[Job]:
    """The trials' jobs that were submitted from `folder`: another checkout has trials of the same
    names."""
    here = os.path.realpath(folder)
    return [job for job in found if job.trial_id and os.path.realpath(job.folder) == here]


def srun_command(place: Mapping[str, Any], site: Mapping[str, Any]) -> list[str]:
    """srun with the whole geometry, a Geometry as JSON: Snakemake's job step takes Slurm's own
    variables away. --overlap: the step of a single task's job holds all that the job has."""
    nodes, ranks_per_node = place["nodes"], place["ranks_per_node"]
    memory = place["memory_mib_per_cpu"]
    return [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes * ranks_per_node}",
        f"--ntasks-per-node={ranks_per_node}",
        f"--cpus-per-task={place['cpus_per_rank']}",
        *([f"--gres={site['gres']}:{place['devices_per_node']}"] if site["gres"] else []),
        *([f"--mem-per-cpu={memory}"] if memory else []),
        "--overlap",
        "--kill-on-bad-exit=1",
        "--export=ALL",
        *site["srun_options"],
    ]


def without_step(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Slurm says of the step that this runs in, if it does: srun would
    take it for its own options, such as the CPUs to bind to."""
    kept = ("SLURM_CONF", "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOBID")
    return {k: v for k, v in environment.items() if not k.startswith("SLURM_") or k in kept}
