"""What of a plan the site, the walltimes or the devices will not bear, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from sagebench.estimate.memory import NO_FIT, TIGHT
from sagebench.grid.expansion import Study
from sagebench.plan.budget import over_budget
from sagebench.plan.rows import PREDICTED, PlanRow, distinct, total
from sagebench.records import Status

NAMED = 3
"""trials that a sentence names"""


def sentences(study: Study, rows: Sequence[PlanRow]) -> list[str]:
    """What to know before submitting, the gravest first."""
    found = [
        _placeholders(study),
        _damaged(rows),
        over_budget(study, rows),
        _allocation(study, rows),
        *_memory(study, rows),
        _no_limit(study, rows),
        _single_step(rows),
        _walltime(rows),
        _longest(study, rows),
        _devices(study, rows),
        _cores(study, rows),
        _jobs(study, rows),
    ]
    return [sentence for sentence in found if sentence]


def _placeholders(study: Study) -> str | None:
    waiting = study.site.placeholders()
    if not waiting:
        return None
    return f"The site of {study.site.machine} still holds placeholders, in {', '.join(waiting)}."


def _damaged(rows: Sequence[PlanRow]) -> str | None:
    damaged = [row for row in distinct(rows) if row.status is Status.DAMAGED]
    if not damaged:
        return None
    outcomes = "outcome counts" if len(damaged) == 1 else "outcomes count"
    return (
        f"The damaged {outcomes} as not there, of {_trials(damaged)}: `make status` says what can "
        "be mended, `make again` with WHERE=status=damaged measures again."
    )


def _allocation(study: Study, rows: Sequence[PlanRow]) -> str | None:
    left, hours = study.site.limits.node_hours, total("", distinct(rows)).node_hours
    if left is None or hours <= left:
        return None
    return f"The study takes {hours:,.1f} node-hours, the account has {left:,.1f} left."


def _memory(study: Study, rows: Sequence[PlanRow]) -> list[str]:
    found = []
    trials = [row for row in distinct(rows) if not row.measured]
    skipped = [row for row in trials if row.skipped]
    if skipped:
        found.append(
            f"{_trials(skipped)} will not fit in memory and {_is(skipped)} not run "
            "(skip_predicted_out_of_memory)."
        )
    full = [row for row in trials if row.fits == NO_FIT and not row.skipped]
    if full:
        found.append(
            f"{_trials(full)} will not fit in memory and would end out of memory; "
            "skip_predicted_out_of_memory: true leaves such trials out."
        )
    tight = [row for row in trials if row.fits == TIGHT and not row.skipped]
    if tight:
        found.append(f"{_trials(tight)} {_is(tight)} tight: whether memory suffices is open.")
    return found


def _no_limit(study: Study, rows: Sequence[PlanRow]) -> str | None:
    if not study.configuration.skip_predicted_out_of_memory or not any(r.to_run for r in rows):
        return None
    if any(row.memory_limit_bytes is not None or row.skipped for row in rows):
        return None
    if study.site.device == "cpu":
        return (
            "skip_predicted_out_of_memory leaves out what runs out of memory in `make pilot`: a "
            "CPU's memory is not estimated."
        )
    if not any(row.sampled for row in rows):
        return "skip_predicted_out_of_memory leaves nothing out before `make probe` has sampled."
    return (
        "skip_predicted_out_of_memory leaves nothing out: how much memory a rank of "
        f"{study.site.machine} has is not known (card in its site.yaml, or memory_limit_gib in the "
        "study)."
    )


def _single_step(rows: Sequence[PlanRow]) -> str | None:
    single = [row for row in distinct(rows) if row.to_run and row.steps_per_epoch == 1]
    if not single:
        return None
    return (
        f"An epoch of {_trials(single)} is a single step: batch_size x accumulation x ranks are no "
        "fewer than the graph's training nodes."
    )


def _walltime(rows: Sequence[PlanRow]) -> str | None:
    short = [row for row in distinct(rows) if row.to_run and _beyond(row, row.walltime_h)]
    if not short:
        return None
    longest = max(row.total_h for row in short)
    return (
        f"{_trials(short)} {_is(short)} predicted to take longer than walltime_min "
        f"(up to {60 * longest:,.0f} minutes) and would end as time_limit."
    )


def _longest(study: Study, rows: Sequence[PlanRow]) -> str | None:
    most = study.site.limits.walltime_max_min
    if most is None:
        return None
    long = [row for row in distinct(rows) if row.to_run and _beyond(row, most / 60)]
    if not long:
        return None
    return (
        f"{_trials(long)} {_is(long)} predicted to take longer than the longest job of "
        f"{study.site.machine}, {most} minutes: continue_after_walltime: true goes on in "
        "another job."
    )


def _devices(study: Study, rows: Sequence[PlanRow]) -> str | None:
    most = study.site.limits.max_devices
    if most is None:
        return None
    per_node = study.site.devices_per_node if study.site.whole_nodes else 1
    wide = [r for r in distinct(rows) if r.to_run and max(r.ranks, r.nodes * per_node) > most]
    if not wide:
        return None
    return f"{_trials(wide)} {_asks(wide)} for more than the {most} devices that one account has."


def _cores(study: Study, rows: Sequence[PlanRow]) -> str | None:
    if study.site.device != "cpu":
        return None
    cores = study.site.cpus

    def threads(row: PlanRow) -> int:
        return row.ranks // row.nodes * study.requests[row.trial].trial.threads_per_rank

    crowded = [row for row in distinct(rows) if row.to_run and threads(row) > cores]
    if not crowded:
        return None
    *counts, last = (str(count) for count in sorted({row.ranks for row in crowded}))
    ranks = f"{', '.join(counts)} and {last}" if counts else last
    return (
        f"Trials of {ranks} rank{'s' * (ranks != '1')} have more ranks x threads than a node of "
        f"{study.site.machine} has cores ({cores}): they run, and are "
        "marked as oversubscribed if it is so few."
    )


def _jobs(study: Study, rows: Sequence[PlanRow]) -> str | None:
    most = study.site.limits.max_submitted_jobs
    jobs = sum(row.to_run for row in distinct(rows))
    if most is None or jobs <= most:
        return None
    return (
        f"{jobs} jobs are to be submitted, one account of {study.site.machine} may have {most} at "
        f"a time: Snakemake keeps to it with --jobs {most} or less."
    )


def _beyond(row: PlanRow, hours: float) -> bool:
    known = row.source == PREDICTED and row.total_h is not None and not row.continues
    return known and row.total_h > hours


def _trials(rows: Sequence[PlanRow]) -> str:
    """ "3 trials (batch 256, fanout 15,10,10; ...)"."""
    shown = [f"{row.engine}, batch {row.batch_size}, fanout {row.fanout}" for row in rows]
    shown = list(dict.fromkeys(shown))
    more = "; ..." if len(shown) > NAMED else ""
    many = "1 trial" if len(rows) == 1 else f"{len(rows)} trials"
    return f"{many} ({'; '.join(shown[:NAMED])}{more})"


def _is(rows: Sequence[PlanRow]) -> str:
    return "is" if len(rows) == 1 else "are"


def _asks(rows: Sequence[PlanRow]) -> str:
    return "asks" if len(rows) == 1 else "ask"
