"""Check a machine before the first study: short jobs of one rank, of a whole node and of two
nodes, which take a trial's way through Snakemake, Slurm and the container.

They check driver, image, binds, graph store, how the ranks meet and how fast they exchange data; a
compiler where trials use one, the room in /dev/shm, and that no rank is on another's GPU.
Prints a table and, in plain words, what is wrong; the exit code is then 1. A width that fails does
not keep the others from being checked. Records and logs: RESULTS/preflight/MACHINE/.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from sagebench.errors import run_script, script_parser
from sagebench.files import read_json
from sagebench.grid.freeze import DEFAULT_CONFIGURATION, load_study
from sagebench.grid.jobs import check_filled_in, preflight_widths
from sagebench.preflight.findings import reason, table


def main() -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--profile", default="profiles/local", help="default: %(default)s")
    parser.add_argument("--configfile", nargs="+", default=[DEFAULT_CONFIGURATION])
    parser.add_argument("--snakefile", default="Snakefile", help="default: %(default)s")
    arguments = parser.parse_args()
    study = load_study(arguments.configfile, Path(arguments.profile, "site.yaml"))
    check_filled_in(study.site)
    widths = preflight_widths(study.site)
    folder = Path(study.results, "preflight", study.site.machine)
    paths = [folder / f"{ranks}.json" for ranks in widths]
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:  # and not what an earlier job said
        path.unlink(missing_ok=True)
        path.with_suffix(".log").unlink(missing_ok=True)
    waiting = ": the jobs wait their turn" if study.site.launcher == "slurm" else ""
    numbers = " and ".join(", ".join(map(str, widths)).rsplit(", ", 1))
    print(f"checking {study.site.machine} with {numbers} ranks{waiting}", flush=True)
    log = folder / "snakemake.log"
    command = [sys.executable, "-m", "snakemake", *map(str, paths)]
    command += ["--profile", arguments.profile, "--configfile", *arguments.configfile]
    command += ["--snakefile", arguments.snakefile, "--forcerun", "preflight"]
    # Beside a run that holds Snakemake's lock; and once is enough to know.
    command += ["--nolock", "--retries", "0"]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Snakemake has it too, and cancels its jobs
    records = [
        read_json(path)
        if path.exists()
        else {"ranks": ranks, "problems": [reason(log.read_text(errors="replace"), path, log)]}
        for ranks, path in zip(widths, paths, strict=True)
    ]
    print(table(records))
    return int(any(record["problems"] for record in records))


if __name__ == "__main__":
    run_script(main)
