"""Start of a trial's ranks: as local processes, or by srun in the site's container."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sagebench.launch.attempt import CurrentAttempt
from sagebench.launch.container import ROOT, container_command, loaded_environment
from sagebench.launch.job import Job, Walltime
from sagebench.launch.ranks import LocalRanks, Ranks, SlurmRanks, start_rank
from sagebench.measure.allocator import allocator_environment
from sagebench.slurm.commands import srun_command, without_step

CPU_HEAP = {
    # Freed memory stays in the process, however much it is: fresh pages cost more than the work
    # done in them.
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_MAX_": "0",
    # No cache of small chunks, which would lie between freed tensors and keep them from being
    # joined: a rank's heap would grow up to twice as large, and by another amount in every process.
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
"""of ranks whose tensors lie on the heap; on a GPU's the small objects of every step alone do, and
would come without their cache"""


def ranks_of(job: Job, attempt: CurrentAttempt, walltime: Walltime) -> Ranks:
    """The trial's ranks, to be started.

    Raises UserError where the site's modules or binds are not there.
    """
    arguments = [*job.program, "--trial", str(job.trial_path), "--store", str(job.store)]
    arguments += ["--out", str(attempt.directory)]
    own = job.trial.device, job.trial.threads_per_rank
    variables = shared_environment(*own, attempt.directory, attempt.started_at_unix_s)
    if walltime.deadline_unix_s is not None:
        variables["SAGEBENCH_DEADLINE"] = repr(walltime.deadline_unix_s)
        variables["SAGEBENCH_WALLTIME_S"] = repr(walltime.asked_s)
    if job.continues:
        variables["SAGEBENCH_CHECKPOINT"] = str(job.checkpoint.resolve())
    folders = job.home.parents[1], job.store
    return rank_group(arguments, variables, attempt.directory, folders, job.site, job.place)


def rank_group(
    arguments: Sequence[str],
    variables: Mapping[str, str],
    directory: Path,
    folders: Sequence[Path],
    site: Mapping[str, Any],
    place: Mapping[str, Any],
) -> Ranks:
    """Ranks that run Python with `arguments`: as processes of this machine, or on the nodes of this
    Slurm job, in the site's container where it has one.

    variables: of their environment, over what the site's modules make of this one, and under the
    site's own. directory: for logs and ends. folders: what the container shows besides the binds;
    the first is where results lie. Raises UserError where modules or binds are not there.
    """
    command, by_slurm = [sys.executable, *arguments], site["launcher"] == "slurm"
    own = loaded_environment(site["modules"]) if by_slurm else os.environ
    environment = {**own, **variables, **site["environment"]}
    if site["device"] == "cuda":
        environment |= allocator_environment(environment, site["expandable_segments"])
    if not by_slurm:
        return LocalRanks(command, environment, directory, place["ranks_per_node"])
    if site["image"] is not None:
        # Where the files really lie: links may lead out of what is bound.
        seen = {ROOT, Path.cwd(), *(path.resolve() for path in folders)}
        command = container_command(site, ["python", *arguments], sorted(seen))
        # The image's Python keeps its compiled kernels apart from the node's, which may differ.
        environment["NUMBA_CACHE_DIR"] = str(folders[0].resolve() / "cache" / "numba")
    command = [*srun_command(place, site), *start_rank(directory), *command]
    count = place["nodes"] * place["ranks_per_node"]
    return SlurmRanks(command, without_step(environment), directory, count)


def shared_environment(
    device: str, threads: int, directory: Path, started_at_unix_s: float
) -> dict[str, str]:
    """Environment of every rank, on any node, with its settings of allocator and threads. The ranks
    rendezvous at a file in `directory`, which all nodes see."""
    return {
        "SAGEBENCH_RENDEZVOUS": str(directory.resolve() / "rendezvous.json"),
        "SAGEBENCH_STARTED_AT": repr(started_at_unix_s),
        "SAGEBENCH_LOAD_1M": repr(os.getloadavg()[0]),
        "OMP_NUM_THREADS": str(threads),
        # Compute threads that wait sleep: spinning, they take the cores from the sampler's threads,
        # and an epoch on a machine with as many threads as cores takes ten times as long.
        "OMP_WAIT_POLICY": "passive",
        "PYTHONUNBUFFERED": "1",
        **(CPU_HEAP if device == "cpu" else {}),
    }
