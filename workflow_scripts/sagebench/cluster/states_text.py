"""The states of a study's trials for a terminal, and for a program."""

from __future__ import annotations

import csv
import io
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, fields

from sagebench.cluster.states import STATES, TrialState
from sagebench.records import Status
from sagebench.text_table import text_table
from sagebench.units import duration

WIDTH = 100
ROWS_SHOWN = 200
QUIET = (Status.COMPLETED, Status.SKIPPED, Status.NOT_STARTED)
"""states that a long list leaves out"""
EXPLAINED = (Status.FAILED, Status.DAMAGED, Status.INTERRUPTED)


def as_text(title: str, states: Sequence[TrialState], queue_unknown: str | None = None) -> str:
    """Totals, a row a trial, and the failures' reasons and logs. title: of what study."""
    counts = Counter(one.state for one in states)
    totals = ", ".join(f"{counts[name]} {name.words}" for name in STATES if counts[name])
    lines = textwrap.wrap(f"{title}: {len(states)} trials: {totals}", WIDTH)
    if queue_unknown:
        lines += [f"What waits in Slurm's queue is unknown: {queue_unknown}."]
    ordered = sorted(states, key=lambda one: STATES.index(one.state))
    shown = ordered
    if len(ordered) > ROWS_SHOWN:
        shown = [one for one in ordered if one.state not in QUIET][:ROWS_SHOWN]
        lines += [f"Below are {len(shown)} of them; --csv lists all."]
    if shown:
        cells = [[one.state.words, one.trial_id, _short(one)] for one in shown]
        progress = any(one.epoch is not None for one in shown)
        head = ["state", "trial", "epoch, time left" if progress else ""]
        table = text_table(head, cells, left={0, 1, 2})
        lines += ["", *(_cut(line) for line in table)]
    alike: dict[tuple[Status, str], list[TrialState]] = {}
    for one in shown:
        if one.state in EXPLAINED:
            alike.setdefault((one.state, one.said), []).append(one)
    for (state, said), trials in alike.items():
        why = "" if said in ("", state) else f": {said}"
        lines += ["", *textwrap.wrap(f"{state.words}{why}", WIDTH)]
        lines += [f"  {one.log or one.trial_id}" for one in trials]
    return "\n".join(lines)


def as_csv(states: Sequence[TrialState]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(entry.name for entry in fields(TrialState))
    writer.writerows(astuple(one) for one in states)
    return text.getvalue()


def _short(one: TrialState) -> str:
    if one.epoch is not None:
        left = f", {duration(one.left_s, digits=2)}" if one.left_s is not None else ""
        return f"epoch {one.epoch}/{one.epochs}{left}"
    if one.state in EXPLAINED:
        job = f", job {one.slurm_job_id}" if one.slurm_job_id else ""
        return f"attempt {one.attempt}{job}" if one.attempt else ""
    return one.said


def _cut(line: str) -> str:
    return line.rstrip() if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
