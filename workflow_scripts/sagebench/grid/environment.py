"""What the workflow hands to its commands and its jobs without making it a parameter of a rule.

A parameter that changes reruns its jobs; where the checkout lies must not rerun a trial.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

SCRIPTS = "SAGEBENCH_SCRIPTS"
FROZEN_STUDY = "SAGEBENCH_FROZEN_STUDY"


def lead_commands(scripts: Path) -> None:
    """Let `python` be the one that runs Snakemake, and $SAGEBENCH_SCRIPTS the scripts' folder."""
    interpreter = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != interpreter:
        os.environ["PATH"] = os.pathsep.join([interpreter, os.environ.get("PATH", "")])
    os.environ[SCRIPTS] = str(scripts.absolute())


def announce_study(path: str) -> None:
    """Tell the run's jobs on other nodes which frozen study they belong to."""
    os.environ[FROZEN_STUDY] = str(Path(path).absolute())


def announced_study() -> str | None:
    """The frozen study of the run that this process is a job of, where there is such a file."""
    path = os.environ.get(FROZEN_STUDY)
    return path if path and Path(path).is_file() else None


def profile_site(arguments: Sequence[str]) -> str | None:
    """The site.yaml beside the profile that Snakemake was called with, where there is one.

    Not an entry of the profile's `config:`, which any --config on the command line replaces: the
    trials of a cluster would silently become trials of this machine.
    """
    profile = os.environ.get("SNAKEMAKE_PROFILE")
    for argument, following in pairwise([*arguments, ""]):
        if argument == "--profile":
            profile = following
        elif argument.startswith("--profile="):
            profile = argument.partition("=")[2]
    if not profile:
        return None
    folder = Path(profile).parent if Path(profile).is_file() else Path(profile)
    site = folder / "site.yaml"
    return str(site) if site.is_file() else None
