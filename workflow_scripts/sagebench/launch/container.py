"""The container that the ranks run in: its modules, its binds, its command line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sagebench.errors import UserError

MODULES_LIMIT_S = 120


def loaded_environment(modules: Sequence[str]) -> dict[str, str]:
    """This process's environment after `module load`; raises UserError with what that said.

    A login shell, since only that knows `module`; the names reach it as arguments, not as text.
    """
    if not modules:
        return dict(os.environ)
    # What the profile says to standard output comes first, up to the NUL.
    script = 'module load "$@" >&2 || exit; printf "\\0"; exec env -0'
    try:
        done = subprocess.run(
            ["bash", "-lc", script, "bash", *modules],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            stdin=subprocess.DEVNULL,
            timeout=MODULES_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"`module load {' '.join(modules)}` took longer than {MODULES_LIMIT_S} s on "
            f"{os.uname().nodename}: try it there by hand"
        ) from None
    if done.returncode:
        # Its first paragraph names the module; what follows is general advice.
        said = " ".join(done.stderr.strip().partition("\n\n")[0].split())
        raise UserError(
            f"`module load {' '.join(modules)}` failed on {os.uname().nodename}"
            f"{': ' + said if said else ''}: correct modules in the profile's site.yaml"
        )
    entries = (entry.split("=", 1) for entry in done.stdout.split("\0")[1:] if "=" in entry)
    return {name: value for name, value in entries if not name.startswith("BASH_FUNC_")}


def container_command(
    site: Mapping[str, Any], command: Sequence[str], folders: Iterable[Path]
) -> list[str]:
    """`command` inside the site's image, which sees the site's binds and `folders`.

    Folders keep their names inside. Raises UserError for a bind that is not there.
    """
    for bind in site["binds"]:
        if not Path(bind).exists():
            raise UserError(
                f"{bind} is listed under binds and does not exist on "
                f"{os.uname().nodename}: correct binds in the profile's site.yaml"
            )
    seen = dict.fromkeys([*site["binds"], *(str(folder) for folder in folders)])
    return [
        *(site["apptainer"], "-q", "exec"),
        *(["--nv"] if site["device"] == "cuda" else []),
        *site["container_options"],
        *(f"--mount={mount(folder)}" for folder in seen),
        *("--pwd", str(Path.cwd())),
        str(Path(site["image"]).resolve()),
        *command,
    ]


def mount(folder: str) -> str:
    """The option's value for one folder: CSV, so that a path may hold commas, colons and quotes."""
    fields = ["type=bind", f"source={folder}", f"destination={folder}"]
    quoted = (text.replace(chr(34), chr(34) * 2) for text in fields)
    return ",".join(f'"{text}"' for text in quoted)
