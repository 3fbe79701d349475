"""Warnings of a plan: site limits, walltimes, memory, oversubscription."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sagebench.estimate.memory import NO_FIT, TIGHT
from sagebench.estimate.time import A_MODEL
from sagebench.grid.expansion import Study
from sagebench.plan.decisions import over_budget
from sagebench.plan.rows import PREDICTED, PlanRow, distinct, total_of
from sagebench.records import Status

NAMED = 3
"""trials that a sentence names"""


def sentences(study: Study, rows: Sequence[PlanRow]) -> list[str]:
    """Warnings before submission, the most severe first."""
    rows = distinct(rows)
    to_run = [row for row in rows if row.to_run]
    return [*_of_all(study, rows, to_run), *_of_trials(study, to_run)]


def _of_all(study: Study, rows: Sequence[PlanRow], to_run: Sequence[PlanRow]) -> Iterator[str]:
    site = study.site
    if waiting := site.placeholders():
        yield f"The site of {site.machine} still holds placeholders, in {', '.join(waiting)}."
    if damaged := [row for row in rows if row.status is Status.DAMAGED]:
        outcomes = "outcome counts" if len(damaged) == 1 else "outcomes count"
        yield (
            f"The damaged {outcomes} as missing, of {_trials(damaged)}: `make status` says what "
            "can be mended, `make again` with WHERE=status=damaged measures again."
        )
    if over := over_budget(study, rows):
        yield over
    left, hours = site.limits.node_hours, total_of(rows).node_hours
    if left is not None and hours > left:
        yield f"The study takes {hours:,.1f} node-hours, the account has {left:,.1f} left."
    if skipped := [row for row in rows if row.skipped]:
        yield (
            f"{_trials_are(skipped, 'will not fit in memory and')} not run "
            "(skip_predicted_out_of_memory)."
        )
    if full := [row for row in to_run if row.fits == NO_FIT]:
        yield (
            f"{_trials(full)} will not fit in memory and would end out of memory; "
            "skip_predicted_out_of_memory: true leaves such trials out."
        )
    if tight := [row for row in to_run if row.fits == TIGHT]:
        yield f"{_trials_are(tight)} tight: whether memory suffices is open."
    decided = skipped or any(row.memory_limit_bytes is not None for row in rows)
    if to_run and study.configuration.skip_predicted_out_of_memory and not decided:
        why = (
            f"nothing out: how much memory a rank of {site.machine} has is not known (card "
            "in its site.yaml, or memory_limit_gib in the study)"
        )
        if site.device == "cpu":
            why = "out what runs out of memory in `make pilot`: a CPU's memory is not estimated"
        elif not any(row.sampled for row in rows):
            why = "nothing out before `make probe` has sampled"
        yield f"skip_predicted_out_of_memory leaves {why}."


def _of_trials(study: Study, to_run: Sequence[PlanRow]) -> Iterator[str]:
    site, limits = study.site, study.site.limits

    def beyond(row: PlanRow, hours: float) -> bool:
        return row.source == PREDICTED and not row.continues and (row.total_h or 0.0) > hours

    def threads(row: PlanRow) -> int:
        return row.ranks // row.nodes * study.requests[row.trial].trial.threads_per_rank

    if single := [row for row in to_run if row.steps_per_epoch == 1]:
        yield (
            f"An epoch of {_trials(single)} is a single step: batch_size x accumulation x ranks "
            "are no fewer than the graph's training nodes."
        )
    if short := [row for row in to_run if beyond(row, row.walltime_h)]:
        longest = max(row.total_h or 0.0 for row in short)
        yield (
            f"{_trials_are(short)} predicted to take longer than walltime_min "
            f"(up to {60 * longest:,.0f} minutes) and would end as time_limit."
        )
    most = limits.walltime_max_min
    if most is not None and (long := [row for row in to_run if beyond(row, most / 60)]):
        yield (
            f"{_trials_are(long)} predicted to take longer than the longest job of "
            f"{site.machine}, {most} minutes: continue_after_walltime: true goes on in another job."
        )
    most, per_node = limits.max_devices, site.devices_per_node if site.whole_nodes else 1
    wide = [r for r in to_run if most is not None and max(r.ranks, r.nodes * per_node) > most]
    if wide:
        asks = "asks" if len(wide) == 1 else "ask"
        yield f"{_trials(wide)} {asks} for more than the {most} devices that one account has."
    crowded = sorted({row.ranks for row in to_run if threads(row) > site.cpus})
    if site.device == "cpu" and crowded:
        ranks = " and ".join(map(str, crowded))
        yield (
            f"Trials of {ranks} rank{'s' * (crowded != [1])} have more ranks x threads than a node "
            f"of {site.machine} has cores ({site.cpus}): they run, and are marked as "
            "oversubscribed if it is so few."
        )
    most = limits.max_submitted_jobs
    if most is not None and len(to_run) > most:
        yield (
            f"{len(to_run)} jobs are to be submitted, one account of {site.machine} may have "
            f"{most} at a time: Snakemake keeps to it with --jobs {most} or less."
        )


def hints(study: Study, rows: Sequence[PlanRow], command: Callable[[str], str]) -> Iterator[str]:
    """Hints that would refine the plan. command: that makes a target."""
    to_run = [row for row in distinct(rows) if row.to_run]
    on_card = study.site.device == "cuda"
    steps = [row for row in to_run if study.requests[row.trial].trial.in_minibatches]
    others = [row for row in to_run if row not in steps and row.total_h is None]
    unprobed = sum(row.sampled is None for row in steps)
    untimed = sum(row.time_basis in (None, A_MODEL) and row.fits != NO_FIT for row in steps)
    if on_card and unprobed:
        yield (
            f"{unprobed} of {len(to_run)} trials are not probed: `{command('probe')}` samples "
            "their graph and records a step of each, on a CPU."
        )
    if untimed:
        yield (
            f"{untimed} of {len(to_run)} trials have no measured time: `{command('pilot')}` "
            f"measures some twenty steps of each on the devices of {study.site.machine}."
        )
    if others:
        methods = {study.requests[row.trial].trial.method: None for row in others}
        yield (
            f"{len(others)} of {len(to_run)} trials ({', '.join(methods)}) stand with the time "
            "asked for: no pilot measures these methods."
        )
    if to_run and not on_card:
        yield "A CPU's memory is not estimated; what is shown is what a pilot reached."


def _trials(rows: Sequence[PlanRow]) -> str:
    """ "3 trials (batch 256, fanout 15,10,10; ...)"."""
    shown = [f"{row.engine}, batch {row.batch_size}, fanout {row.fanout}" for row in rows]
    shown = list(dict.fromkeys(shown))
    more = "; ..." if len(shown) > NAMED else ""
    many = "1 trial" if len(rows) == 1 else f"{len(rows)} trials"
    return f"{many} ({'; '.join(shown[:NAMED])}{more})"


def _trials_are(rows: Sequence[PlanRow], between: str = "") -> str:
    verb = "is" if len(rows) == 1 else "are"
    return " ".join(filter(None, (_trials(rows), between, verb)))
