"""Two Slurm nodes (tb1, tb2) with four GPUs each, and Apptainer, on this Debian machine; as root.

install  Debian's packages, and Apptainer with its own C library, in STATE/bin/apptainer
start    MariaDB, munge, slurmdbd, slurmctld and two slurmd; what runs already is left alone
status   what runs, and what the nodes say; exit code 1 unless all is up
image    build STATE/images/testbed.sif from container/testbed.def
base     make only what that starts from, and print the image_build_options to build it with
stop     stop all of it, with the jobs

Everything is kept in STATE; outside it there is only the link /etc/slurm/slurm.conf, which `stop`
takes away. The GPUs are null devices: jobs are given them, and nothing computes on them.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from pathlib import Path

from bed.apptainer import install_apptainer
from bed.commands import BedError, run, succeeds
from bed.daemons import daemons, running, start, stop
from bed.image import build_image, prepare_base
from bed.layout import Layout
from bed.packages import install_packages

STATE = "/var/tmp/sagebench-testbed"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["install", "start", "status", "image", "base", "stop"])
    parser.add_argument(
        "--state", default=STATE, help="folder of all its files (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=27000, help="first of five ports (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        if os.geteuid():
            raise BedError("the test cluster needs root: several users' daemons run in it")
        return act(arguments.action, Layout(Path(arguments.state), arguments.port))
    except BedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def act(action: str, bed: Layout) -> int:
    bed.state.mkdir(parents=True, exist_ok=True)
    bed.state.chmod(0o755)
    os.environ["SLURM_CONF"] = str(bed.slurm_conf)  # whatever cluster the caller's one is
    if action == "status":
        return status(bed)
    with (bed.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one after the other
        if action == "install":
            install_packages()
            install_apptainer(bed)
        elif action == "start":
            start(bed)
        elif action == "image":
            print(build_image(bed))
        elif action == "base":
            print(*prepare_base(bed), sep="\n")
        elif left := stop(bed):
            raise BedError(f"still running: {', '.join(left)}")
    return 0


def status(bed: Layout) -> int:
    pids = {daemon.name: running(bed, daemon.name) for daemon in daemons(bed)}
    for name, pid in pids.items():
        print(f"{name:12} {f'running, process {pid}' if pid else 'not running'}")
    apptainer = run([bed.apptainer, "--version"]).strip() if bed.apptainer.exists() else "not there"
    print(f"{'apptainer':12} {apptainer}")
    print(f"{'image':12} {bed.image if bed.image.exists() else 'not there'}")
    if not all(pids.values()) or not succeeds(["sinfo"]):
        return 1
    print(run(["sinfo"]), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
