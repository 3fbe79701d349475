"""What the ranks of a trial leave for its launcher: exit codes, measurements, early ends.

Standard library only: the launcher needs nothing else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from sagebench.files import read_json, write_json
from sagebench.records import FromJson, Measured, Reason, Status

EARLY_END_CODE = 86
"""exit code of a rank that ended early and says why in its record"""
PROFILE = ("profile.txt", "trace.json.gz")
"""the files of a trial with `profile_steps`"""


@dataclass(kw_only=True)
class Measurements(Measured):
    """What rank 0 has measured so far, as `attempts/N/measured.json` has it. complete: the trial is
    through."""

    versions: dict[str, str | None] | None = None
    start_to_first_step_s: float | None = None
    complete: bool = False

    def write(self, directory: Path) -> None:
        write_json(measured_path(directory), asdict(self))


def measured_path(directory: Path) -> Path:
    """directory: of the attempt."""
    return directory / "measured.json"


def read_measurements(directory: Path) -> Measurements:
    """What rank 0 wrote last, with the allocators' counters of ranks that ended early."""
    path = measured_path(directory)
    measured = Measurements.from_json(read_json(path)) if path.exists() else Measurements()
    for rank in measured.ranks:
        ended = read_early_end(directory, rank["rank"])
        rank |= ended.allocator if ended else {}
    return measured


@dataclass(frozen=True)
class RankEarlyEnd(FromJson):
    """Why a rank ended early, as it says itself in `attempts/N/rank-R.json`.

    allocator: its counters then, of machine.collect_allocator.
    """

    status: Status
    at_unix_s: float
    reason: Reason
    allocator: dict[str, int | None] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        write_json(_early_end_path(directory, self.reason.rank), asdict(self))


def read_early_end(directory: Path, rank: int) -> RankEarlyEnd | None:
    """None where the rank wrote none."""
    path = _early_end_path(directory, rank)
    return RankEarlyEnd.from_json(read_json(path)) if path.exists() else None


def _early_end_path(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.json"
