"""Snakemake as it is, but for its patience: the Slurm plugin looks for the end of a job 10 s later
after every look in vain, up to 3 minutes, and the tests would spend most of their time so."""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

LOOK_EVERY_S = 2


def _next(self) -> float:
    return LOOK_EVERY_S


def _ignore(self, value: float) -> None:
    """What the plugin would have."""


if __name__ == "__main__":
    RemoteExecutor.next_seconds_between_status_checks = property(_next, _ignore)
    sys.exit(main())
