"""Why a width left no record: what Snakemake, or Slurm through it, said about its job."""

from __future__ import annotations

import re
from pathlib import Path

SBATCH = re.compile(r"SLURM sbatch failed\. The error message was '(.*?)'\.\n", re.DOTALL)
OURS = re.compile(r"^error: (.+)$", re.MULTILINE)
MESSAGE = re.compile(r"^ *message: (.+?)(?: Reason: Unknown\.)?(?: ?For further error .*)?$", re.M)
LOGS = re.compile(r"^ *log: (.+) \(check log file", re.MULTILINE)


def reason(said: str, path: Path, log: Path) -> str:
    """One sentence. said: all that Snakemake printed, which is in `log`. path: the record.

    Where the width's own job did not fail, Snakemake refused the run, such as without its image.
    """
    blocks = re.split(r"^Error in rule ", said, flags=re.MULTILINE)[1:]
    mine = "\n".join(block for block in blocks if str(path) in block)
    for text in (mine, said):
        if found := SBATCH.search(text):
            lines = [line.strip() for line in found[1].splitlines() if line.strip()]
            return f"Slurm refused the job: {' '.join(lines)}"
        for lines in (text, *_logs(text)):
            if found := OURS.search(lines):
                return found[1].strip()
        if found := MESSAGE.search(text):
            return f"{found[1].strip()} See {log}"
    last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
    return f"its job left no answer{': ' + last[0] if last else ''}; see {log}"


def _logs(text: str) -> list[str]:
    """What stands in the logs that the failed jobs have."""
    paths = [Path(name) for names in LOGS.findall(text) for name in names.split(", ")]
    return [path.read_text(errors="replace") for path in paths if path.is_file()]
