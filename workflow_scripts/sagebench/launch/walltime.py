"""When a trial has to stop by itself, so that there is time left to write its outcome."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone

from sagebench.slurm.commands import NoAnswer, ask

MARGIN = 0.05
MARGIN_MAX_S = 60.0
"""share of the walltime, up to a minute, that is left for writing the outcome"""
HAND_BACK_S = 10.0
"""what the job needs after the trial: a job that Slurm ends has failed, with an outcome or not"""
SCONTROL_LIMIT_S = 30


@dataclass(frozen=True)
class Walltime:
    """asked_s: what the trial was given; None: no limit. end_unix_s: when it is used up."""

    asked_s: float | None
    end_unix_s: float | None

    @classmethod
    def of_job(cls, asked_s: float | None, started_at_unix_s: float) -> Walltime:
        """From the trial's start on, but in time before the end of the Slurm job that it runs in:
        that began earlier."""
        if asked_s is None:
            return cls(None, None)
        end = started_at_unix_s + asked_s
        if job_end := slurm_job_end_unix_s():
            end = min(end, job_end - HAND_BACK_S)
        return cls(asked_s, end)

    @classmethod
    def left_of_job(cls, started_at_unix_s: float) -> Walltime:
        """What the Slurm job has left that this runs in; no limit outside of one."""
        job_end = slurm_job_end_unix_s()
        if job_end is None:
            return cls(None, None)
        end = job_end - HAND_BACK_S
        return cls(max(0.0, end - started_at_unix_s), end)

    @property
    def _margin_s(self) -> float:
        assert self.asked_s is not None
        return min(MARGIN_MAX_S, MARGIN * self.asked_s)

    @property
    def deadline_unix_s(self) -> float | None:
        """When the ranks stop by themselves."""
        return None if self.end_unix_s is None else self.end_unix_s - self._margin_s

    @property
    def last_resort_unix_s(self) -> float | None:
        """When ranks that did not look at the clock are ended."""
        return None if self.end_unix_s is None else self.end_unix_s - self._margin_s / 2


def slurm_job_end_unix_s() -> float | None:
    """The end of the Slurm job that this process runs in; None outside of one."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    try:
        said = ask(["scontrol", "show", "job", "--oneliner", job], SCONTROL_LIMIT_S)
    except NoAnswer:
        return None
    fields = dict(field.split("=", 1) for field in said.split() if "=" in field)
    try:
        end = datetime.fromisoformat(fields["EndTime"])
    except (KeyError, ValueError):  # no such job any more, or one without a limit
        return None
    return end.replace(tzinfo=timezone.utc).timestamp()
