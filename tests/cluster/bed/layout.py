"""Where the test cluster keeps its files, and the ports that it listens on."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path

from bed.commands import BedError

NODES = ("tb1", "tb2")
GPUS_PER_NODE = 4
CLUSTER, ACCOUNT, QOS = "testbed", "sagebench", "short"
# Slurm's plugin for Snakemake takes SLURM_CONF out of the jobs' environment, so the clients in them
# look here.
SYSTEM_CONF = Path("/etc/slurm/slurm.conf")


@dataclass(frozen=True)
class Layout:
    """One test cluster. `state` holds everything it writes; ports `port` to `port + 4` are its."""

    state: Path
    port: int = 27000

    def __post_init__(self) -> None:
        # Slurm's configuration has no way to quote a path.
        if not re.fullmatch(r"/[\w./+-]*", str(self.state)):
            raise BedError(
                f"--state is {str(self.state)!r}: write an absolute path of letters, digits and "
                ". / + - _ only"
            )

    @property
    def host(self) -> str:
        return socket.gethostname().split(".")[0]

    def log(self, name: str) -> Path:
        return self.state / "log" / f"{name}.log"

    def pid_file(self, name: str) -> Path:
        return self.state / "run" / f"{name}.pid"

    @property
    def slurm_conf(self) -> Path:
        return self.state / "etc" / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        return self.state / "run" / "munge.socket"

    @property
    def database_socket(self) -> Path:
        return self.state / "run" / "mariadb.socket"

    @property
    def controller_port(self) -> int:
        return self.port

    def node_port(self, node: str) -> int:
        return self.port + 1 + NODES.index(node)

    @property
    def slurmdbd_port(self) -> int:
        return self.port + 3

    @property
    def database_port(self) -> int:
        return self.port + 4

    @property
    def apptainer(self) -> Path:
        return self.state / "bin" / "apptainer"

    @property
    def image(self) -> Path:
        return self.state / "images" / "testbed.sif"
