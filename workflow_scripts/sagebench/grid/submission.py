"""What must not reach Slurm: a site that is not filled in, and names that would not arrive as they
are. Snakemake hands its own command line to a shell on the node, and quotes it as Python would."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sagebench.errors import UserError
from sagebench.grid.site import PLACEHOLDER, Site

PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@%=-]+")


def check_filled_in(site: Site) -> None:
    """Raises UserError where a value of the site still waits for its user."""
    if waiting := site.placeholders():
        raise UserError(
            f"the site of {site.machine} still holds the placeholder {PLACEHOLDER} in "
            f"{', '.join(waiting)}: write your own values in its profile's site.yaml"
        )


def check_submission(
    site: Site, folder: str, python: str, texts: Mapping[str, str], *, as_script: bool = True
) -> None:
    """Raises UserError for what cannot be submitted.

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
        if not carried(text, as_script):
            raise UserError(
                f"{what} {text!r} cannot be handed to a Slurm job as it is: write it without ' \\ "
                "and unprintable characters, and $ ` only with slurm-pass-command-as-script: true "
                "in the profile's config.yaml"
            )


def carried(text: str, as_script: bool = True) -> bool:
    """Whether repr(text), which is how Snakemake quotes, is `text` to a shell and nothing more.

    A text that looks quoted is not quoted again.
    """
    unsafe = r"""^"|['\\]""" if as_script else r"""^"|['\\$`]"""
    return text.isprintable() and not re.search(unsafe, text)
