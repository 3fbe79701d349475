"""Slurm's configuration files: two nodes with four GPUs each, on one host and without cgroups."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from bed.commands import BedError, write
from bed.layout import CLUSTER, GPUS_PER_NODE, NODES, SYSTEM_CONF, Layout

# Slurm starts a requeued job once its old credentials have expired, by default after two minutes.
REQUEUE_WAIT_S = 30

MARK = "# sagebench's test cluster: written by tests/cluster/testbed.py"


def write_configuration(bed: Layout) -> None:
    """Write all of it; the same files again where they are there already."""
    for folder in ("etc", "run", "log", "slurmctld", "gpus", *(f"slurmd.{node}" for node in NODES)):
        (bed.state / folder).mkdir(parents=True, exist_ok=True)
        (bed.state / folder).chmod(0o755)
    key = bed.state / "etc" / "munge.key"
    if not key.exists():
        write(key, secrets.token_hex(64), mode=0o400)
    for number in range(GPUS_PER_NODE):
        _make_device(bed.state / "gpus" / f"gpu{number}")
    write(bed.slurm_conf, slurm_conf(bed))
    write(bed.state / "etc" / "gres.conf", gres_conf(bed))
    write(bed.state / "etc" / "slurmdbd.conf", slurmdbd_conf(bed), mode=0o600)
    _link_system_conf(bed)


def slurm_conf(bed: Layout) -> str:
    state, host = bed.state, bed.host
    nodes = "\n".join(
        f"NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} Port={bed.node_port(node)} "
        f"CPUs=64 Boards=1 SocketsPerBoard=2 CoresPerSocket=32 ThreadsPerCore=1 "
        f"RealMemory=500000 Gres=gpu:{GPUS_PER_NODE}"
        for node in NODES
    )
    return f"""{MARK}
ClusterName={CLUSTER}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={bed.controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={bed.munge_socket},cred_expire={REQUEUE_WAIT_S}
MpiDefault=none

# --- files
StateSaveLocation={state}/slurmctld
SlurmdSpoolDir={state}/slurmd.%n
SlurmctldPidFile={state}/run/slurmctld.own.pid
SlurmdPidFile={state}/run/slurmd.%n.own.pid
# The daemons' own messages go to log/NAME.log; this is where slurmstepd writes.
SlurmdLogFile={state}/log/steps.%n.log

# --- works as root in a sandbox: no cgroups, no pinning to cores that are not there
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SlurmdParameters=config_overrides
ReturnToService=2

# --- a busy machine answers late, and tests should not wait long for a failed node
MessageTimeout=60
SlurmdTimeout=30
KillWait=5
SchedulerParameters=batch_sched_delay=1,sched_interval=5

# --- accounting, as on a site: an unknown account or QOS is refused
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={bed.slurmdbd_port}
AccountingStoragePass={bed.munge_socket}
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
JobAcctGatherFrequency=task=5

# --- nodes and partitions: `gpu` gives whole nodes out, `shared` and `cpu` share them
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes={",".join(NODES)} Default=YES State=UP MaxTime=02:00:00 \
OverSubscribe=EXCLUSIVE
PartitionName=shared Nodes={",".join(NODES)} State=UP MaxTime=02:00:00
PartitionName=cpu Nodes={",".join(NODES)} State=UP MaxTime=02:00:00
"""


def gres_conf(bed: Layout) -> str:
    # Without File= the nodes go to the state `inval`.
    last = GPUS_PER_NODE - 1
    return f"""{MARK}
AutoDetect=off
NodeName={",".join(NODES)} Name=gpu File={bed.state}/gpus/gpu[0-{last}]
"""


def slurmdbd_conf(bed: Layout) -> str:
    return f"""{MARK}
AuthType=auth/munge
AuthInfo=socket={bed.munge_socket}
DbdHost={bed.host}
DbdAddr=127.0.0.1
DbdPort={bed.slurmdbd_port}
SlurmUser=root
PidFile={bed.state}/run/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={bed.database_port}
StorageUser=slurm
StoragePass={database_password(bed)}
StorageLoc=slurm_accounting
"""


def database_password(bed: Layout) -> str:
    path = bed.state / "etc" / "database.password"
    if not path.exists():
        write(path, secrets.token_hex(16), mode=0o600)
    return path.read_text()


def _make_device(path: Path) -> None:
    """A character device that stands for a GPU: another null device."""
    if not path.exists():
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _link_system_conf(bed: Layout) -> None:
    if SYSTEM_CONF.exists() and SYSTEM_CONF.resolve() != bed.slurm_conf.resolve():
        if MARK in SYSTEM_CONF.read_text():
            other = SYSTEM_CONF.resolve().parents[1]
            raise BedError(f"a test cluster is there already: `testbed.py stop --state {other}`")
        raise BedError(
            f"{SYSTEM_CONF} belongs to another Slurm: run the test cluster on a machine without one"
        )
    SYSTEM_CONF.parent.mkdir(parents=True, exist_ok=True)
    SYSTEM_CONF.unlink(missing_ok=True)
    SYSTEM_CONF.symlink_to(bed.slurm_conf)


def unlink_system_conf(bed: Layout) -> None:
    if SYSTEM_CONF.is_symlink() and SYSTEM_CONF.readlink() == bed.slurm_conf:
        SYSTEM_CONF.unlink()
