"""What a study asks for before it runs, and how much of it is measured already."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sagebench.grid.expansion import Study
from sagebench.grid.freeze import outcome_path
from sagebench.grid.resources import geometry

# More rows than anybody reads on a terminal; plan.csv has them all.
ROWS_SHOWN = 200


@dataclass(frozen=True)
class PlanRow:
    """A trial of an experiment. Hours are those asked for: an upper bound of what it takes."""

    experiment: str
    trial: str
    engine: str
    batch_size: int
    accumulation: int
    fanout: str
    seed: int
    ranks: int
    nodes: int
    walltime_h: float
    hours_used: float  # ranks x walltime
    hours_allocated: float  # what is billed: on whole-node sites every device of the nodes
    measured: bool


@dataclass(frozen=True)
class Total:
    """Of an experiment or the study; the hours are those of the trials that are still to run."""

    name: str
    trials: int
    measured: int
    hours_used: float
    hours_allocated: float


def plan_rows(study: Study) -> list[PlanRow]:
    """One row for each experiment and trial; an experiment's trial may be another one's too."""
    measured = {
        trial_id: Path(outcome_path(study.results, trial_id)).exists()
        for trial_id in study.requests
    }
    places = {
        ranks: geometry(ranks, study.site)
        for ranks in {request.trial.ranks for request in study.requests.values()}
    }
    rows = []
    for experiment in study.experiments:
        for trial_id in experiment.trials:
            request = study.requests[trial_id]
            trial, place = request.trial, places[request.trial.ranks]
            walltime_h = request.walltime_min / 60
            rows.append(
                PlanRow(
                    experiment=experiment.name,
                    trial=trial_id,
                    engine=trial.engine,
                    batch_size=trial.batch_size,
                    accumulation=trial.accumulation,
                    fanout=",".join(map(str, trial.fanout)),
                    seed=trial.seed,
                    ranks=trial.ranks,
                    nodes=place.nodes,
                    walltime_h=walltime_h,
                    hours_used=trial.ranks * walltime_h,
                    hours_allocated=place.devices_allocated * walltime_h,
                    measured=measured[trial_id],
                )
            )
    return rows


def totals(rows: Sequence[PlanRow]) -> list[Total]:
    """One total for each experiment, then the study's, which counts a shared trial once."""
    names = list(dict.fromkeys(row.experiment for row in rows))
    shares = [_total(name, [row for row in rows if row.experiment == name]) for name in names]
    return [*shares, _total("all", list({row.trial: row for row in rows}.values()))]


def _total(name: str, rows: Sequence[PlanRow]) -> Total:
    to_run = [row for row in rows if not row.measured]
    return Total(
        name=name,
        trials=len(rows),
        measured=len(rows) - len(to_run),
        hours_used=sum(row.hours_used for row in to_run),
        hours_allocated=sum(row.hours_allocated for row in to_run),
    )


def device_word(study: Study) -> str:
    """What an hour is an hour of: a CPU rank is no GPU."""
    return "gpu" if study.site.device == "cuda" else "device"


def as_csv(rows: Sequence[PlanRow], device: str) -> str:
    """The rows as CSV, with the unit of the hours in their names."""
    text = io.StringIO()
    names = {name: name for name in PlanRow.__dataclass_fields__}
    names |= {name: f"{device}_{name}" for name in ("hours_used", "hours_allocated")}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names.values())
    for row in rows:
        writer.writerow(
            str(value).lower()
            if isinstance(value, bool)
            else round(value, 4)
            if isinstance(value, float)
            else value
            for value in (getattr(row, name) for name in names)
        )
    return text.getvalue()


def as_text(study: Study, rows: Sequence[PlanRow]) -> str:
    """The plan for a terminal."""
    unit = f"{device_word(study).replace('gpu', 'GPU')}-hours"
    lines = [f"{study.name} on {study.site.machine}", ""]
    if len(rows) <= ROWS_SHOWN:
        head = ["experiment", "batch", "accum.", "fanout", "seed", "ranks", "nodes", "time h"]
        head += [f"{unit} used", "allocated", "measured"]
        cells = [
            [
                row.experiment,
                str(row.batch_size),
                str(row.accumulation),
                row.fanout,
                str(row.seed),
                str(row.ranks),
                str(row.nodes),
                _hours(row.walltime_h),
                _hours(row.hours_used),
                _hours(row.hours_allocated),
                "yes" if row.measured else "-",
            ]
            for row in rows
        ]
        lines += [*_table(head, cells, left={0, 3, 10}), ""]
    head = ["experiment", "trials", "measured", "to run", f"{unit} used", "allocated"]
    cells = [
        [
            total.name,
            str(total.trials),
            str(total.measured),
            str(total.trials - total.measured),
            _hours(total.hours_used),
            _hours(total.hours_allocated),
        ]
        for total in totals(rows)
    ]
    lines += _table(head, cells, left={0})
    lines += ["", "Hours are the time asked for, of the trials still to run."]
    if sum(len(experiment.trials) for experiment in study.experiments) > len(study.requests):
        lines.append("A trial that several experiments share runs once; `all` counts it once.")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2f}"


def _table(head: Sequence[str], cells: Sequence[Sequence[str]], left: Iterable[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    left = set(left)

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()

    return [line(head), "  ".join("-" * width for width in widths), *map(line, cells)]
