"""Verdict on a trial: its status from the ranks' exits, by the first cause."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from sagebench.attempts import EARLY_END_CODE, RankEarlyEnd
from sagebench.measure.allocator import ALLOCATOR_MESSAGES, exhausted_limit
from sagebench.records import Limit, Reason, Status

CONSEQUENCES = ("Connection closed by peer", "Connection reset by peer", "NCCL communicator was")
"""what a rank says whose peer went first"""


@dataclass(frozen=True)
class RankEnd:
    """How one rank's process ended.

    code: exit code, negative for a signal; None where nothing noted it. order: 0 for the first that
    ended. early_end: what it wrote about one. log_tail: the end of its log. stopped: the
    launcher ended it.
    """

    rank: int
    code: int | None
    order: int
    log_tail: str = ""
    early_end: RankEarlyEnd | None = None
    stopped: bool = False

    @property
    def has_exit_record(self) -> bool:
        """Whether the rank left an exit record (not after a node failure)."""
        return self.code is not None


@dataclass(frozen=True)
class Verdict:
    """status: an end of an attempt; `message` says why it leaves no outcome, where it does not.
    too_short: a failure for which a predicted walltime was too short. signal: the one that asked
    the launcher to end, if one did."""

    status: Status
    message: str = ""
    reason: Reason | None = None
    rank: int | None = None
    too_short: bool = False
    signal: int | None = None


def decide(
    ends: list[RankEnd],
    *,
    complete: bool,
    limit_gib: float | None,
    device: str = "cpu",
    killed_for_memory: Callable[[], bool] = lambda: False,
    walltime_s: float | None = None,
) -> Verdict:
    """The verdict over all ranks.

    complete: rank 0 wrote its last measurements. limit_gib, device: the trial's own memory
    cap, and its device.
    killed_for_memory: tells whether the kernel or Slurm ended one for its memory; asked where that
    matters.
    walltime_s: given where the launcher ended the ranks because their walltime was used up.
    """
    records = [end.early_end for end in ends if end.early_end and end.code == EARLY_END_CODE]
    if records:
        first_record = min(records, key=lambda early_end: early_end.at_unix_s)
        why = first_record.reason
        return Verdict(first_record.status, why.message, why, why.rank)
    bad = sorted((end for end in ends if end.code != 0), key=_causality)
    if not bad:
        if complete:
            return Verdict(Status.COMPLETED)
        message = "every rank ended with exit code 0 but the measurements are not whole"
        return Verdict(Status.FAILED, message)
    first = bad[0]
    if first.stopped and walltime_s is not None:
        message = f"the walltime of {walltime_s:.0f} s was used up"
        reason = Reason(first.rank, "unknown", message, Limit("walltime", walltime_s, "s"))
        return Verdict(Status.TIME_LIMIT, message, reason, first.rank)
    lines = last_lines(first.log_tail.lower())
    said = [(text, line) for text in ALLOCATOR_MESSAGES for line in lines if text in line]
    killed = not first.has_exit_record or first.code == -signal.SIGKILL
    if said:
        message = f"{said[0][0]}, then {ending(first)}"
        limit = exhausted_limit(said[0][1], device, limit_gib)
    elif killed and not first.stopped and killed_for_memory():
        message, limit = "killed by the out-of-memory killer", Limit("host_memory", None, "GiB")
    else:
        return Verdict(Status.FAILED, f"rank {first.rank} {ending(first)}", rank=first.rank)
    reason = Reason(first.rank, "unknown", message, limit)
    return Verdict(Status.OUT_OF_MEMORY, message, reason, first.rank)


def last_lines(log: str) -> list[str]:
    """Last lines of a log, the only ones searched for an error."""
    return [line.strip() for line in log.splitlines() if line.strip()][-5:]


def _causality(end: RankEnd) -> tuple[bool, bool, int]:
    """Causes before consequences, then by time. srun ends the peers of a bad rank with SIGTERM."""
    peer_went = any(text in end.log_tail for text in CONSEQUENCES)
    return end.stopped, peer_went or end.code == -signal.SIGTERM, end.order


def ending(end: RankEnd) -> str:
    """Description of a rank's end: exit code or signal, last line of its log."""
    if end.code is not None and end.code < 0:
        return f"was ended by {signal.Signals(-end.code).name}"
    lines = last_lines(end.log_tail)
    last = f": {lines[-1]}" if lines else ""
    if end.code is None:
        return f"left no exit record{last}"
    return f"failed with exit code {end.code}{last}"
