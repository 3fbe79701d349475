"""What the workflow hands to its commands and its jobs without making it a parameter of a rule.

A parameter that changes reruns its jobs; where the checkout lies must not rerun a trial.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = "SAGEBENCH_SCRIPTS"
FROZEN_STUDY = "SAGEBENCH_FROZEN_STUDY"
RUN_BEGAN = "SAGEBENCH_RUN_BEGAN"


def lead_commands(scripts: Path) -> None:
    """Let `python` be the one that runs Snakemake, and $SAGEBENCH_SCRIPTS the scripts' folder."""
    interpreter = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != interpreter:
        os.environ["PATH"] = os.pathsep.join([interpreter, os.environ.get("PATH", "")])
    os.environ[SCRIPTS] = str(scripts.absolute())


def announce_study(path: str) -> None:
    """Tell the run's jobs which frozen study they belong to, and when the run began."""
    os.environ[FROZEN_STUDY] = str(Path(path).absolute())
    os.environ[RUN_BEGAN] = repr(time.time())


def announced_study() -> str | None:
    """The frozen study of the run that this process is a job of, where there is such a file."""
    path = os.environ.get(FROZEN_STUDY)
    return path if path and Path(path).is_file() else None


def run_began_unix_s() -> float:
    """When the run began that this process is a job of; now, where it is of none."""
    return float(os.environ.get(RUN_BEGAN) or time.time())


def profile_site(arguments: Sequence[str]) -> str | None:
    """The site.yaml beside the profile that Snakemake was called with, where there is one.

    Not an entry of the profile's `config:`, which any --config on the command line replaces: the
    trials of a cluster would silently become trials of this machine.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", default=os.environ.get("SNAKEMAKE_PROFILE"))
    profile = parser.parse_known_args(arguments)[0].profile
    if not profile:
        return None
    folder = Path(profile).parent if Path(profile).is_file() else Path(profile)
    site = folder / "site.yaml"
    return str(site) if site.is_file() else None


def typed_command(arguments: Sequence[str], folder: Path) -> str:
    """Snakemake's command line, its sys.argv, as one types it in `folder`.

    The program is `snakemake` by its path below `folder`, as `make` calls it, which needs no
    activated environment; the bare name where it lies elsewhere, also for `python -m snakemake`.
    """
    path = Path(arguments[0]).absolute()
    if path.name != "snakemake":  # the module's own file
        path = Path(sys.executable).with_name("snakemake")
    name = str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
    profile = os.environ.get("SNAKEMAKE_PROFILE")
    before = f"SNAKEMAKE_PROFILE={shlex.quote(profile)} " if profile else ""
    return before + shlex.join([name, *arguments[1:]])
