"""Keeps Slurm's signals from the process that mounts a container's image.

Slurm sends them to every process of a step, so also to squashfuse_ll where Apptainer has no better
way to mount. It would end, and the image be gone from under a rank that writes its checkpoint.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

MOUNTER = "squashfuse_ll"
WRAPPER = """#!/bin/sh
# What is ignored stays ignored: libfuse takes only signals that nobody has taken.
trap '' HUP INT TERM USR1
exec {mounter} "$@"
"""


def shielded_path(directory: Path, path: str) -> str:
    """`path` with a folder made in `directory` before it, where Apptainer finds a squashfuse_ll
    that signals do not end; as it is where there is none on it."""
    mounter = shutil.which(MOUNTER, path=path)
    folder = directory.resolve() / "bin"
    if mounter is None or os.pathsep in str(folder):
        return path
    folder.mkdir(exist_ok=True)
    wrapper = folder / MOUNTER
    wrapper.write_text(WRAPPER.format(mounter=shlex.quote(mounter)))
    wrapper.chmod(0o755)
    return os.pathsep.join([str(folder), path])
