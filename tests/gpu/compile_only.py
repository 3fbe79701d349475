"""Compile every kernel that the benchmark launches for a GPU that is not there.

    python tests/gpu/compile_only.py 90 [sections of the benchmark]

Prints a line a kernel: its launch options, registers a thread, spilled bytes, shared memory,
conversions of layout, and how many global accesses of each width its code has.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class AbsentGpu:
    """What the compiler asks a driver for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def resources(compiled, capability: int) -> dict:
    """What a compiled kernel takes of a multiprocessor."""
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "kernel.ptx"
        ptx.write_text(compiled.asm["ptx"])
        name = f"sm_{capability}" + ("a" if capability == 90 else "")
        told = subprocess.run(
            [get_ptxas(capability).path, "-v", f"--gpu-name={name}", ptx, "-o", f"{ptx}.o"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    accesses = {}
    for access in re.findall(r"(?:ld|st|atom)\.global\S*", compiled.asm["ptx"]):
        accesses[access] = accesses.get(access, 0) + 1
    return {
        "registers": int(re.search(r"Used (\d+) registers", told)[1]),
        "spilled_bytes": sum(int(n) for n in re.findall(r"(\d+) bytes spill", told)),
        "shared_bytes": compiled.metadata.shared,
        "conversions": compiled.asm["ttgir"].count("ttg.convert_layout"),
        "accesses": accesses,
    }


def compile_instead_of_launching(capability: int) -> None:
    launch, seen = JITFunction.run, set()

    def run(self, *args, grid, warmup, **options):
        compiled = launch(self, *args, grid=grid, warmup=True, **options)
        if (self.__name__, compiled.hash) not in seen:
            seen.add((self.__name__, compiled.hash))
            print(self.__name__, options, resources(compiled, capability), flush=True)

    driver.set_active(AbsentGpu(capability))
    JITFunction.run = run


def main() -> None:
    capability, *sections = sys.argv[1:]
    compile_instead_of_launching(int(capability))
    import bench_candidates
    from candidates.sampler import KernelSampler

    # Nothing is computed, so there is nothing to compare, and every sample is empty.
    bench_candidates.compare = lambda *_: {}
    KernelSampler._read = lambda self, sizes: [0] * len(sizes)
    sys.argv[1:] = ["--device", "cpu", "--scale", "0.0003", "--compile-only", "--budget-s", "900"]
    sys.argv += ["--only", *sections] if sections else []
    bench_candidates.main()


if __name__ == "__main__":
    main()
