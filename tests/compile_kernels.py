"""Compiles every Triton kernel for a GPU that is not there, and prints what each takes, as JSON.

python tests/compile_kernels.py 90
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime import driver
from triton.runtime.jit import JITFunction

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow_scripts"))

from gpu_kernel_calls import call_all
from sagebench.sampling.device.kernels import KernelSampler


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


FLOAT_ATOMIC = re.compile(r"\b(?:atom|red)\.\S*\.f(?:16|32|64)")


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
    return {
        "registers": int(re.search(r"Used (\d+) registers", told)[1]),
        "spilled_bytes": sum(int(n) for n in re.findall(r"(\d+) bytes spill", told)),
        "shared_bytes": compiled.metadata.shared,
        "float_atomics": len(
            re.findall(r"\b(?:atom|red)\.\S*\.f(?:16|32|64)", compiled.asm["ptx"])
        ),
    }


def compile_instead_of_launching(capability: int) -> dict[str, dict]:
    """By kernel and options; filled as kernels are called."""
    launch, found = JITFunction.run, {}

    def run(self, *args, grid, warmup, **options):
        compiled = launch(self, *args, grid=grid, warmup=True, **options)
        types = sorted({str(arg.dtype) for arg in args if isinstance(arg, torch.Tensor)})
        name = f"{self.fn.__module__.rpartition('.')[2]}.{self.__name__} {types} {options}"
        found[name] = resources(compiled, capability)

    driver.set_active(AbsentGpu(capability))
    JITFunction.run = run
    return found


def main() -> None:
    capability = int(sys.argv[1])
    found = compile_instead_of_launching(capability)
    # Nothing is computed, so every sample is empty.
    KernelSampler._read = lambda self, sizes: [0] * len(sizes)
    call_all()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
