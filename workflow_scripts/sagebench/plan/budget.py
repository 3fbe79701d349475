"""A study that takes more node-hours than its budget, and what to drop."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sagebench.grid.expansion import Study
from sagebench.plan.rows import ASKED, PlanRow, distinct, total
from sagebench.units import hours_text

SHOWN = 5


def over_budget(study: Study, rows: Sequence[PlanRow]) -> str | None:
    """A sentence where the trials still to run take more than budget_node_hours."""
    budget = study.configuration.budget_node_hours
    found = total("", distinct(rows))
    if budget is None or found.node_hours <= budget:
        return None
    asked = sum(row.source == ASKED and row.to_run for row in distinct(rows))
    basis = "as predicted"
    if asked == found.to_run:
        basis = "as asked for by walltime_min"
    elif asked:
        basis = f"{asked} of {found.to_run} trials by their walltime_min, the others as predicted"
    return (
        f"The study takes {hours_text(found.node_hours)} node-hours ({basis}), "
        f"budget_node_hours is {budget:g}."
    )


def refusal(study: Study, rows: Sequence[PlanRow]) -> str | None:
    """Why a run must not begin: the sentence, what to drop for what saving, how to override."""
    sentence = over_budget(study, rows)
    if sentence is None:
        return None
    rows = distinct(rows)
    hours = sum(row.node_hours for row in rows)
    budget = study.configuration.budget_node_hours
    dropped = drops(rows, hours - budget)
    lines = [f"{sentence[:-1]}: drop trials, or give it more.", ""]
    for row in dropped[:SHOWN]:
        what = f"batch {row.batch_size}x{row.accumulation}, fanout {row.fanout}, ranks {row.ranks}"
        what = f"{row.experiment}: {row.engine}, {what}, seed {row.seed}"
        lines.append(f"  {hours_text(row.node_hours):>10}  {what}")
    if len(dropped) > SHOWN:
        rest = sum(row.node_hours for row in dropped[SHOWN:])
        lines.append(f"  {hours_text(rest):>10}  {len(dropped) - SHOWN} more (plan.csv has all)")
    saved = sum(row.node_hours for row in dropped)
    lines += [
        f"  {'-' * 10}",
        f"  {hours_text(saved):>10}  saved; {hours_text(hours - saved)} node-hours remain",
        "",
        f"Or override it: budget_node_hours: {math.ceil(hours)} in the study (or --config "
        f"budget_node_hours={math.ceil(hours)} for Snakemake, first with the target `plan`, which "
        "shows every trial).",
    ]
    return "\n".join(lines)


def drops(rows: Sequence[PlanRow], saving: float) -> list[PlanRow]:
    """The fewest trials without which as many node-hours are saved: the most expensive first, and
    the last of them as cheap as suffices."""
    left, dropped = saving, []
    costly = sorted((row for row in rows if row.node_hours), key=lambda row: -row.node_hours)
    while left > 0 and costly:
        enough = [row for row in costly if row.node_hours >= left]
        row = enough[-1] if enough else costly[0]
        costly.remove(row)
        dropped.append(row)
        left -= row.node_hours
    return dropped
