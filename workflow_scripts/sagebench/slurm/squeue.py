"""What waits in Slurm's queue and what runs there, of the trials of one study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sagebench.slurm.commands import ask

# The comment last: all that may stand in it is ours, and a trial's id holds no separator.
FORMAT = "%i|%T|%r|%Z|%k"
COMMENT = "rule_trial_wildcards_"
"""what Snakemake's Slurm plugin notes as the comment of a trial's job, before the trial's id"""
LIMIT_S = 30.0


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


def jobs(user_ids: Iterable[int]) -> list[Job]:
    """The jobs of these users that have not ended; raises NoAnswer."""
    users = ",".join(map(str, sorted(set(user_ids))))
    return parse(ask(["squeue", "--noheader", "--user", users, "--format", FORMAT], LIMIT_S))


def parse(text: str) -> list[Job]:
    found = []
    for line in text.splitlines():
        parts = line.split("|", 3)
        if len(parts) != 4 or "|" not in parts[3]:
            continue
        job_id, state, reason, rest = parts
        folder, _, comment = rest.rpartition("|")
        trial_id = comment.removeprefix(COMMENT) if comment.startswith(COMMENT) else ""
        found.append(Job(job_id, state, reason, folder, trial_id))
    return found


def of_trials(found: Iterable[Job], folder: Path) -> list[Job]:
    """The trials' jobs that were submitted from `folder`: another checkout has trials of the same
    names."""

    @cache
    def same(path: str) -> bool:
        try:
            return Path(path).samefile(folder)
        except OSError:  # it is gone, or lies where this user may not look
            return False

    return [job for job in found if job.trial_id and same(job.folder)]
