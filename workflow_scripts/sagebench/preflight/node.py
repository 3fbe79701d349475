"""What a node has for a rank, tried out in the rank's container."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sagebench.engines.precision import LANGUAGES, OLDEST, find_compiler, torch_version
from sagebench.errors import UserError
from sagebench.graph.store import GraphStore
from sagebench.measure.machine import Nvml, available_cores, collect_slurm, collect_versions

COMPILER_LIMIT_S = 60
SOURCE = "#include <Python.h>\n"
"""Triton's launchers and torch's compiled code are Python extensions"""


def machine(device: str, compiles: bool) -> dict[str, Any]:
    """Versions, CPUs and devices, as they are inside of the container, and what trials use besides
    them. compiles: a trial has compile: true."""
    found: dict[str, Any] = {
        "slurm": collect_slurm(),
        "versions": collect_versions(),
        "cores": available_cores(),
        "cores_of_machine": os.cpu_count(),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "driver": None,
        "devices": [],
        "device_error": None,
        "too_old_to_compile": compiles and torch_version() < OLDEST,
        "compiler": compiler(device, compiles),
        "shared_memory": shared_memory(),
    }
    if device == "cuda":
        found["driver"] = Nvml().driver()
        try:
            torch.cuda.init()
            count = torch.cuda.device_count()
            found["devices"] = [torch.cuda.get_device_name(index) for index in range(count)]
        except (RuntimeError, AssertionError) as error:
            found["device_error"] = str(error).strip().splitlines()[0]
    return found


def compiler(device: str, compiles: bool) -> dict[str, Any] | None:
    """{"language", "error"} where trials on `device` compile code while they run."""
    if not compiles or torch_version() < OLDEST:
        return None
    language = LANGUAGES[device]
    return {"language": language, "error": compiler_error(language)}


def compiler_error(language: str) -> str | None:
    """Why the compiler makes no Python extension, None where it does."""
    command = find_compiler(language)
    if command is None:
        return "there is none"
    # As Triton does: Debian's own scheme names a folder that holds no headers.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    include = sysconfig.get_paths(scheme=scheme)["include"]
    with tempfile.TemporaryDirectory(prefix="sagebench-") as scratch:
        words = [
            command,
            f"-x{language.lower()}",
            "-",
            "-shared",
            "-fPIC",
            "-I",
            include,
            "-o",
            f"{scratch}/x.so",
        ]
        try:
            done = subprocess.run(
                words,
                input=SOURCE,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMPILER_LIMIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{command}: {error}"
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.splitlines() if "error" in line] or ["it failed"]
    return f"{command}: {said[0]}"


def shared_memory(folder: Path = Path("/dev/shm")) -> dict[str, Any]:
    """{"free_bytes", "error"} of the folder through which processes hand each other memory."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        return {"free_bytes": shutil.disk_usage(folder).free, "error": None}
    except OSError as error:
        return {"free_bytes": None, "error": error.strerror}


def files(own: Path, folders: Sequence[str], store: str | None) -> dict[str, Any]:
    """Folders that cannot be read, by reason; whether the results can be written, and the store
    opened. own: a file to write."""
    found: dict[str, Any] = {"unreadable": {}, "unwritable": None, "store": None}
    for folder in folders:
        try:
            next(Path(folder).iterdir(), None)
        except OSError as error:
            found["unreadable"][folder] = error.strerror
    try:
        own.write_text("")
    except OSError as error:
        found["unwritable"] = error.strerror
    if store is not None:
        found["store"] = {"path": store, "error": None}
        try:
            opened = GraphStore.open(store)
            found["store"]["num_nodes"] = opened.num_nodes
            opened.features[0].sum()
        except (UserError, OSError) as error:
            found["store"]["error"] = str(error)
    return found
