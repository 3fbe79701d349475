"""Debian's packages, installed without starting their services."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bed.commands import BedError, run, say

SLURM = ("slurmctld", "slurmd", "slurm-client", "slurmdbd", "munge", "mariadb-server")
APPTAINER = ("patchelf", "squashfs-tools", "squashfuse", "fuse-overlayfs", "uidmap")
IMAGE = ("debootstrap", "python3-venv")
MODULES = ("lmod",)
POLICY = Path("/usr/sbin/policy-rc.d")
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def install_packages() -> None:
    """Install what is missing of the packages above; nothing to do leaves apt alone."""
    wanted = (*SLURM, *APPTAINER, *IMAGE, *MODULES)
    missing = [name for name in wanted if not _installed(name)]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    with _no_service_started():
        run(["apt-get", "update", "-q"], limit_s=300, env=QUIET)
        command = ["apt-get", "install", "-qy", "--no-install-recommends", *missing]
        run(command, limit_s=900, env=QUIET)


def _installed(name: str) -> bool:
    try:
        return run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name]) == "installed"
    except BedError:
        return False


@contextmanager
def _no_service_started() -> Iterator[None]:
    """Debian's packages start their daemons unless policy-rc.d forbids it."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
