"""Energy of the GPUs: watts that a pilot measured, else outcomes of the same engine on the same
card, else a share of the card's power limit. Hosts, network and cooling are not in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median

from sagebench.estimate.cards import Card, card_name
from sagebench.grid.trial import Trial
from sagebench.pilot.records import Pilot
from sagebench.records import Outcome

POWER_SHARE = 0.7
"""of the power limit, while training, which is bound by memory and seldom by its power: a
judgement, until a trial on the card has been measured"""

Power = Mapping[tuple[str, str | None], tuple[float, int]]
"""(engine, card): watts of one card while it trains, and of how many outcomes"""


def measured_power(outcomes: Iterable[Outcome]) -> Power:
    """Median watts of outcomes that measured their energy."""
    found: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for outcome in outcomes:
        joules = (outcome.energy or {}).get("nvml_j")
        seconds = outcome.timing and outcome.timing.training_s
        name = outcome.ranks[0].get("device_name") if outcome.ranks else None
        if joules and seconds and name:
            key = outcome.trial["engine"], card_name(name)
            found[key].append(joules / seconds / len(outcome.ranks))
    return {key: (median(watts), len(watts)) for key, watts in found.items()}


def power_of(
    trial: Trial, card: Card | None, measured: Power, pilot: Pilot | None
) -> tuple[float, str] | None:
    """Watts of all of a trial's GPUs while it trains, and what they rest on, in words; None on a
    CPU, and for a card that nobody knows."""
    if pilot is not None and pilot.energy_j:
        watts = pilot.energy_j / (pilot.micro_steps * pilot.step_mean_s)
        return watts * trial.ranks, "power measured in its pilot"
    if trial.device != "cuda" or card is None:
        return None
    watts = POWER_SHARE * card.power_w
    source = f"{POWER_SHARE:.0%} of the {card.power_w:.0f} W of {card.name}"
    known = measured.get((trial.engine, card.name))
    if known is not None:
        watts, count = known
        source = f"power measured in {count} outcome{'s' * (count > 1)}"
    return watts * trial.ranks, source
