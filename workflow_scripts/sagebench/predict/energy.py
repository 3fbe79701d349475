"""Energy of the GPUs: what outcomes measured of the same engine on the same card, else a share of
the card's power limit. Hosts, network and cooling are not in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from sagebench.grid.trial import Trial
from sagebench.predict.cards import card_name, find_card
from sagebench.predict.rates import Rates

POWER_SHARE = 0.7
"""of the power limit, while training, which is bound by memory and seldom by its power: a
judgement, until a trial on the card has been measured"""

Power = Mapping[tuple[str, str], tuple[float, int]]
"""(engine, card): watts of one card while it trains, and of how many outcomes"""


def measured_power(outcomes: Iterable[Mapping[str, Any]]) -> Power:
    """Median watts of outcomes (as read from outcome.json) that measured their energy."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in outcomes:
        joules = (outcome.get("energy") or {}).get("nvml_j")
        seconds = (outcome.get("timing") or {}).get("training_s")
        ranks = outcome.get("ranks")
        if joules and seconds and ranks and ranks[0].get("device_name"):
            key = Trial.from_json(outcome["trial"]).engine, card_name(ranks[0]["device_name"])
            found[key].append(joules / seconds / len(ranks))
    return {key: (median(watts), len(watts)) for key, watts in found.items()}


def power_of(trial: Trial, rates: Rates, measured: Power) -> tuple[float, str] | None:
    """Watts of all of a trial's GPUs while it trains, and what they rest on, in words; None on a
    CPU, and for a card whose power nobody knows."""
    if trial.device != "cuda" or rates.device_name is None:
        return None
    known = measured.get((trial.engine, rates.device_name))
    if known is not None:
        watts, count = known
        source = f"power measured in {count} outcome{'s' * (count > 1)}"
    else:
        card = find_card(rates.device_name)
        if card is None:
            return None
        watts = POWER_SHARE * card.power_w
        source = f"{POWER_SHARE:.0%} of {card.name}'s {card.power_w:.0f} W"
    return watts * trial.ranks, source
