"""What a run hands to its commands and its jobs beside the parameters of rules, and what must not
reach Slurm.

A parameter that changes reruns its jobs; where the checkout lies must not rerun a trial. Standard
library only: the launcher on a compute node reads it, too.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sagebench.errors import UserError

if TYPE_CHECKING:
    from sagebench.grid.site import Site

SCRIPTS = "SAGEBENCH_SCRIPTS"
FROZEN_STUDY = "SAGEBENCH_FROZEN_STUDY"
RUN_BEGAN = "SAGEBENCH_RUN_BEGAN"
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@%=-]+")


def lead_commands(scripts: Path) -> None:
    """Let `python` be the one that runs Snakemake, and $SAGEBENCH_SCRIPTS the scripts' folder."""
    interpreter, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    if path.split(os.pathsep)[0] != interpreter:
        os.environ["PATH"] = os.pathsep.join([interpreter, path])
    os.environ[SCRIPTS] = str(scripts.absolute())


def announce_study(path: str) -> None:
    """Exports the frozen study's path and the start of the run to the jobs."""
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
    site = Path(profile, "site.yaml")
    if Path(profile).is_file():
        site = Path(profile).with_name("site.yaml")
    return str(site) if site.is_file() else None


def shell_command(arguments: Sequence[str], folder: Path) -> str:
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


def check_filled_in(site: Site) -> None:
    """Raises UserError where a value of the site still waits for its user."""
    if waiting := site.placeholders():
        raise UserError(
            f"the site of {site.machine} still holds the placeholder EDIT in "
            f"{', '.join(waiting)}: write your own values in its profile's site.yaml"
        )


def check_submission(
    site: Site, folder: str, python: str, texts: Mapping[str, str], *, as_script: bool = True
) -> None:
    """Raises UserError for what cannot be submitted: Snakemake hands its own command line to a
    shell on the node, and quotes it as Python would.

    folder: where Snakemake was called. python: the interpreter that runs it. texts: whatever else
    stands on the command lines of its jobs, by what it is. as_script: the plugin passes these lines
    as a script, not in a wrapped string.
    """
    check_filled_in(site)
    if "%" in folder:
        raise UserError(
            f"the folder {folder} has a % in its name, which Slurm reads as a pattern in the names "
            "of its log files: call Snakemake in a folder without one"
        )
    if not PLAIN_PATH.fullmatch(python):
        raise UserError(
            f"Snakemake hands the path of its Python, {python}, to a shell without quotes: make "
            "the environment where the path is letters, digits and / . _ - alone, e.g. with "
            'VENV="$HOME/sagebench-venv" behind make'
        )
    for what, text in {"the folder": folder, **texts}.items():
        if not survives_shell(text, as_script):
            raise UserError(
                f"{what} {text!r} cannot be handed to a Slurm job as it is: write it without ' \\ "
                "and unprintable characters, and $ ` only with slurm-pass-command-as-script: true "
                "in the profile's config.yaml"
            )


def survives_shell(text: str, as_script: bool = True) -> bool:
    """Whether repr(text), which is how Snakemake quotes, is `text` to a shell and nothing more.

    A text that looks quoted is not quoted again.
    """
    unsafe = r"""^"|['\\]""" if as_script else r"""^"|['\\$`]"""
    return text.isprintable() and not re.search(unsafe, text)
