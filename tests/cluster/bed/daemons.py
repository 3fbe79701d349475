"""Start, find and stop the daemons: MariaDB, munge, slurmdbd, slurmctld and one slurmd a node.

Each runs in the foreground of a session of its own, its process id in STATE/run/NAME.pid.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bed.commands import BedError, run, say, wait_until, write
from bed.configuration import (
    database_password,
    slurm_conf,
    unlink_system_conf,
    write_configuration,
)
from bed.layout import ACCOUNT, CLUSTER, NODES, QOS, Layout
from bed.processes import alive, end, leftovers

START_LIMIT_S = 60
STOP_LIMIT_S = 20


@dataclass(frozen=True)
class Daemon:
    """One of them: the command that runs it, and a check that raises BedError till it answers."""

    name: str
    command: list[str]
    check: Callable[[], object]


def daemons(bed: Layout) -> list[Daemon]:
    """All of them, in the order of their start."""
    state = bed.state
    database = f"""mariadbd --no-defaults --user=mysql --datadir={state}/mysql
        --socket={bed.database_socket} --pid-file={state}/mysql/mariadb.pid
        --bind-address=127.0.0.1 --port={bed.database_port} --skip-name-resolve
        --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900"""
    munge = f"""munged --foreground --force --socket={bed.munge_socket}
        --key-file={state}/etc/munge.key --seed-file={state}/run/munge.seed
        --pid-file={state}/run/munge.own.pid --num-threads=4"""
    return [
        Daemon("mariadb", database.split(), lambda: run(_sql(bed, "select 1"))),
        Daemon("munge", munge.split(), lambda: run(["munge", "-n", "-S", bed.munge_socket])),
        Daemon("slurmdbd", ["slurmdbd", "-D"], lambda: run(_sacctmgr("show", "cluster"))),
        Daemon("slurmctld", ["slurmctld", "-D"], lambda: run(["scontrol", "show", "config"])),
        *(
            Daemon(f"slurmd.{node}", ["slurmd", "-D", "-N", node], _registered(node))
            for node in NODES
        ),
    ]


def start(bed: Layout) -> None:
    """Start what does not run, and wait until every node takes jobs."""
    if any(running(bed, daemon.name) for daemon in daemons(bed)):
        _refuse_other_settings(bed)
    write_configuration(bed)
    for daemon in daemons(bed):
        _start_one(bed, daemon)
        if daemon.name == "mariadb":
            _create_database_user(bed)
        if daemon.name == "slurmdbd":  # slurmctld does not start without its cluster
            _add("cluster", CLUSTER)
        if daemon.name == "slurmctld":
            _add_associations()


def running(bed: Layout, name: str) -> int | None:
    """The process id of a daemon that runs."""
    path = bed.pid_file(name)
    try:
        pid = int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    # The start time tells it from another process that was given the same number since.
    return pid if alive(pid, not_after=path.stat().st_mtime + 1) else None


def stop(bed: Layout) -> list[str]:
    """Stop all that `start` started, and what its jobs left; returns what could not be stopped."""
    if running(bed, "slurmctld"):
        _cancel_jobs()
    for daemon in reversed(daemons(bed)):
        if daemon.name == "slurmctld":  # the nodes' daemons are gone: what is left is nobody's
            for pid in leftovers(bed.state, NODES):
                end(pid, signal.SIGTERM, limit_s=1)
        if pid := running(bed, daemon.name):
            end(pid, signal.SIGTERM, limit_s=STOP_LIMIT_S)
        if not running(bed, daemon.name):
            bed.pid_file(daemon.name).unlink(missing_ok=True)
    unlink_system_conf(bed)
    left = [f"{d.name} ({pid})" for d in daemons(bed) if (pid := running(bed, d.name))]
    return left + [f"a job's process ({pid})" for pid in leftovers(bed.state, NODES)]


def _cancel_jobs() -> None:
    """Cancel every job, and give the nodes a moment to end them; what is left is killed later."""
    until = time.monotonic() + STOP_LIMIT_S
    with contextlib.suppress(BedError):
        run(["scancel", "--full", "--signal=KILL", "--user=root"], limit_s=STOP_LIMIT_S)
        run(["scancel", "--user=root"], limit_s=STOP_LIMIT_S)
        while run(["squeue", "-h"], limit_s=STOP_LIMIT_S) and time.monotonic() < until:
            time.sleep(0.2)


def _start_one(bed: Layout, daemon: Daemon) -> None:
    """Start it where it does not run, and wait until it answers."""
    log = bed.log(daemon.name)
    began = time.monotonic()
    process = None
    if not running(bed, daemon.name):
        _prepare(bed, daemon.name)
        process = _spawn(bed, daemon, log)
    wait_until(
        daemon.name,
        daemon.check,
        limit_s=START_LIMIT_S,
        alive=lambda: process is None or process.poll() is None,
        log=log,
    )
    if process:
        say(f"{daemon.name} is up after {time.monotonic() - began:.1f} s (process {process.pid})")


def _spawn(bed: Layout, daemon: Daemon, log: Path) -> subprocess.Popen[bytes]:
    if log.exists():
        log.replace(log.with_suffix(".log.old"))
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                daemon.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=bed.state,
                env=os.environ | {"PATH": _path()},
            )
        except FileNotFoundError as error:
            raise BedError(
                f"{daemon.command[0]} is not here: run `testbed.py install` first"
            ) from error
    write(bed.pid_file(daemon.name), f"{process.pid}\n")
    return process


def _refuse_other_settings(bed: Layout) -> None:
    if bed.slurm_conf.exists() and bed.slurm_conf.read_text() != slurm_conf(bed):
        raise BedError(f"{bed.state} runs with other settings: `testbed.py stop` it first")


def _prepare(bed: Layout, name: str) -> None:
    """What a daemon needs before its start: a free port, and MariaDB its folder."""
    ports = {
        "mariadb": bed.database_port,
        "slurmdbd": bed.slurmdbd_port,
        "slurmctld": bed.controller_port,
        **{f"slurmd.{node}": bed.node_port(node) for node in NODES},
    }
    if name in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", ports[name]))
            except OSError as error:
                raise BedError(
                    f"port {ports[name]} of {name} is taken: free it, or give --port another number"
                ) from error
    if name == "munge":
        bed.munge_socket.unlink(missing_ok=True)
    if name == "mariadb":
        _make_database_folder(bed.state)


def _make_database_folder(state: Path) -> None:
    folder = state / "mysql"
    if not (folder / "mysql").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        command = f"mariadb-install-db --no-defaults --user=mysql --datadir={folder} --skip-test-db"
        run(command.split(), limit_s=120, env={"PATH": _path()})
    shutil.chown(state / "run", "mysql")  # its socket


def _create_database_user(bed: Layout) -> None:
    user, password = "'slurm'@'127.0.0.1'", database_password(bed)
    statements = (
        "create database if not exists slurm_accounting;"
        f"create or replace user {user} identified by '{password}';"
        f"grant all on slurm_accounting.* to {user};"
    )
    run(_sql(bed, None), input=statements)


def _add_associations() -> None:
    _add("qos", QOS, "priority=10")
    _add("account", ACCOUNT, f"cluster={CLUSTER}")
    _add("user", "root", f"account={ACCOUNT}", f"cluster={CLUSTER}")
    run(
        _sacctmgr("modify", "user", "root", "set", f"qos=normal,{QOS}", f"defaultaccount={ACCOUNT}")
    )


def _add(kind: str, name: str, *more: str) -> None:
    """Add to the accounting; sacctmgr exits 1 where it is there already."""
    try:
        run(_sacctmgr("add", kind, name, *more))
    except BedError as error:
        if "already exist" not in str(error) and "Nothing new added" not in str(error):
            raise


def _sacctmgr(*words: str) -> list[str]:
    return ["sacctmgr", "-i", "-n", "-P", *words]


def _sql(bed: Layout, statement: str | None) -> list[str | Path]:
    command = ["mariadb", "--no-defaults", f"--socket={bed.database_socket}", "--batch"]
    return [*command, "-e", statement] if statement else command


def _registered(node: str) -> Callable[[], None]:
    def check() -> None:
        state = run(["sinfo", "-h", "-n", node, "-p", "gpu", "-o", "%T"]).strip()
        if state not in ("idle", "mixed", "allocated", "completing"):
            raise BedError(f"node {node} is {state or 'unknown'}")

    return check


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
