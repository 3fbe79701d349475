"""Timeout for jobs that Snakemake's Slurm plugin would wait for forever.

Plugin 2.8.0 waits for every job whose state it does not take for an end: one that sacct calls
"CANCELLED by 1000", one that was preempted and that the site does not start again, and one that
Slurm has forgotten, since nobody asked in time. Its question is answered here in its own words.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

LOST_AFTER_S = 600.0
"""how long a job may be gone; the site starts a preempted one again in less"""
RESTARTED_BY_SITE = ("PREEMPTED", "NODE_FAIL", "REQUEUED")
GONE = "UNKNOWN"
"""the plugin's word for a job that is no more: Snakemake looks whether it left its outputs"""

Query = Callable[[str, Any], Awaitable[tuple[dict[str, str] | None, float | None]]]


def bound_waits() -> None:
    """Have the plugin of this process ask by way of `bounded`; where it has no such function to ask
    with any more, say so, loudly."""
    import snakemake_executor_plugin_slurm as plugin  # here: a plan needs none of it

    query = getattr(plugin, "query_job_status", None)
    loop = inspect.getsource(plugin.Executor.check_active_jobs)
    if not inspect.iscoroutinefunction(query) or "await query_job_status(" not in loop:
        print(
            "WARNING: Snakemake's Slurm plugin of this version asks for its jobs in another way "
            "than that of envs/requirements.txt: one that Slurm forgets may be waited for for ever",
            file=sys.stderr,
        )
        return
    plugin.query_job_status = bounded(query)


def bounded(query: Query, clock: Callable[[], float] = time.monotonic) -> Query:
    """`query`, with states of one word, and GONE for a job that is lost."""
    gone_since: dict[str, float] = {}  # by job; inf for one that was there at the last look

    async def bounded_query(
        command: str, logger: Any
    ) -> tuple[dict[str, str] | None, float | None]:
        answer, took_s = await query(command, logger)
        if answer is None:
            return None, took_s
        states = {job: state.split()[0] for job, state in answer.items() if state}
        for job in {*gone_since, *states}:
            if job not in states or states[job] in RESTARTED_BY_SITE:
                gone_since[job] = min(gone_since.get(job, clock()), clock())
            else:
                gone_since[job] = float("inf")
        for job, since in gone_since.items():
            if clock() - since > LOST_AFTER_S:
                states[job] = GONE
        return states, took_s

    return bounded_query
