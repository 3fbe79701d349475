"""Memory of a rank: limit, peaks, and out-of-memory errors."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import resource
import threading
import time
from dataclasses import asdict
from pathlib import Path

import torch

from sagebench.measure.allocator import ALLOCATOR_MESSAGES
from sagebench.records import PeakBytes
from sagebench.units import GIB, KIB

POLL_S = 0.01
HANDLE_WORDS = ("cublas_status_not_initialized", "cusparse_status_not_initialized")
HANDLE_BYTES = 512 << 20
"""what a library's handle and workspace take at most"""


def limit_memory(device: torch.device, limit_gib: float) -> None:
    """Cap what this rank may allocate from now on to `limit_gib` GiB.

    CUDA: a fraction of the card for torch's caching allocator. CPU: the private memory of this
    process (RLIMIT_DATA) above what imports, threads and compiled code took already, as a card's
    limit does not count the CUDA context either. Memory-mapped files (the graph store) do not
    count.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_gib * GIB / total), device)
        return
    gc.collect()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    [taken_kib] = re.findall(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    limit = int(taken_kib) * KIB + int(limit_gib * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def lift_limit(device: torch.device) -> None:
    """Remove the limit: for a process that ran out of memory, to say so, and for what is no part
    of the trial."""
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):  # a GPU that has failed takes no setting
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def allocators_error(error: BaseException, device: torch.device) -> BaseException | None:
    """The allocator's exception: `error` itself or one that caused it; None where there is none."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return error
    said = str(error).lower() if isinstance(error, (RuntimeError, OSError)) else ""
    if any(words in said for words in ALLOCATOR_MESSAGES):
        return error
    # cuBLAS and cuSPARSE say the same of a driver that does not fit them as of a full GPU.
    if device.type == "cuda" and any(words in said for words in HANDLE_WORDS):
        with contextlib.suppress(RuntimeError):  # the GPU itself has failed
            if torch.cuda.mem_get_info(device)[0] < HANDLE_BYTES:
                return error
    cause = error.__cause__ or error.__context__
    return None if cause is None else allocators_error(cause, device)


def release_memory(device: torch.device) -> None:
    """Give freed memory back to the system, so that one phase's peak is not the next one's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """This process's peaks, in bytes, over the stretches `with peak: ...`.

    The kernel keeps no peak of private memory, so a thread looks every 10 ms: 30 us a look.
    `peak_device_used_bytes` is no peak, and not this process's: what is in use on the whole device,
    by all processes, is read once at the end of each stretch, and the highest reading is kept. What
    was freed within a stretch, or another process took and gave back, is not in it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._peaks: dict[str, int | None] = asdict(PeakBytes())
        self._watching = threading.Event()

    def start(self) -> None:
        """Start the thread: before the memory is capped."""
        threading.Thread(target=self._poll, daemon=True).start()

    def forget(self) -> None:
        """Begin anew, of the same thread."""
        self._peaks = asdict(PeakBytes())

    def __enter__(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._watching.set()

    def __exit__(self, *_: object) -> None:
        self._watching.clear()
        self._look()

    def _look(self) -> None:
        if self.device.type == "cuda":
            self._note("peak_allocated_bytes", torch.cuda.max_memory_allocated(self.device))
            self._note("peak_reserved_bytes", torch.cuda.max_memory_reserved(self.device))
            free, total = torch.cuda.mem_get_info(self.device)
            self._note("peak_device_used_bytes", total - free)
        self._note("peak_host_private_bytes", self.host_bytes())

    def read(self) -> dict[str, int | None]:
        """The figures so far; those of a GPU are null on a CPU."""
        if self._watching.is_set():
            self._look()
        return dict(self._peaks)

    def raise_to(self, peaks: dict[str, int | None]) -> None:
        """Count earlier peaks, as `read` gave them, of the same rank in another process."""
        for name, value in peaks.items():
            if value is not None:
                self._note(name, value)

    @staticmethod
    def host_bytes() -> int:
        """Private resident memory: mapped files (libraries, the graph store) do not count."""
        resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * resource.getpagesize()

    def _poll(self) -> None:
        while True:
            self._watching.wait()
            self._note("peak_host_private_bytes", self.host_bytes())
            time.sleep(POLL_S)

    def _note(self, name: str, value: int) -> None:
        self._peaks[name] = max(self._peaks[name] or 0, value)
