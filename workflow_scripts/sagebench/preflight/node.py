"""What a node has for a rank, tried out in the rank's container: a compiler, /dev/shm, contexts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from sagebench.engines.compilation import LANGUAGES, OLDEST, find_compiler, torch_version

COMPILER_LIMIT_S = 60
SOURCE = "#include <Python.h>\n"
"""Triton's launchers and torch's compiled code are Python extensions"""


def compiler(device: str, compiles: bool) -> dict[str, Any] | None:
    """{"language", "error"} where trials on `device` compile code while they run; error: why that
    does not work. compiles: a trial has compile: true."""
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
        source = Path(scratch, "nothing.c")
        source.write_text(SOURCE)
        words = [command, str(source), "-shared", "-fPIC", "-I", include, "-o", f"{source}.so"]
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
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
        held = os.statvfs(folder)
    except OSError as error:
        return {"free_bytes": None, "error": error.strerror}
    return {"free_bytes": held.f_bavail * held.f_frsize, "error": None}


def gpus_with_context(pid: int, nvml: Any = None) -> list[int] | None:
    """The node's GPUs, as NVML numbers them, on which a process has a CUDA context.

    None: not known, since NVML does not see the process, as it is in a container with process
    numbers of its own. nvml: the module to ask.
    """
    found = []
    if nvml is None:
        try:
            import pynvml as nvml
        except ImportError:
            return None
    with contextlib.suppress(nvml.NVMLError):
        nvml.nvmlInit()
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if any(at.pid == pid for at in nvml.nvmlDeviceGetComputeRunningProcesses(handle)):
                found.append(index)
        return found or None
    return None
