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

from sagebench.kernels.gpu import norm, segment, segment_max
from sagebench.sampling.device import kernels as sampler


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
    return {
        "registers": int(re.search(r"Used (\d+) registers", told)[1]),
        "spilled_bytes": sum(int(n) for n in re.findall(r"(\d+) bytes spill", told)),
        "shared_bytes": compiled.metadata.shared,
        "float_atomics": len(re.findall(r"(?:atom|red)\.\S*\.f(?:16|32|64)", compiled.asm["ptx"])),
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


def call_all() -> None:
    """Each kernel as the slides' trial calls it: 100 features, 256 hidden channels, fanout 15."""
    rowptr, col = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 2], dtype=torch.int32)
    colptr = torch.tensor([0, 1, 2, 3], dtype=torch.int32)
    for dtype in (torch.bfloat16, torch.float32):
        x, gamma = torch.empty(3, 256, dtype=dtype), torch.empty(256)
        features = torch.empty(3, 100, dtype=dtype)
        out, mean, rstd = norm.forward(x, gamma, gamma, 0.5, 1, colptr[:3].long(), 1e-5)
        norm.backward(x, gamma, gamma, 0.5, 1, colptr[:3].long(), mean, rstd, out)
        segment.aggregate(features, rowptr, col, colptr[:2].long(), True, dtype)
        both = segment.aggregate(x, rowptr, col, None, True, dtype)
        segment.gradient(both, colptr, col, 256, 2, mean[:2])
        highest, tied = segment_max.maximum(x, rowptr, col)
        segment_max.gradient(x, highest, tied, highest, highest, colptr, col)
    sampler.KernelSampler._read = lambda self, sizes: [0] * len(sizes)
    sampler.KernelSampler(rowptr, col).sample([0, 1], [15, 10, 32], 1, relabel_last=False)


def main() -> None:
    capability = int(sys.argv[1])
    found = compile_instead_of_launching(capability)
    call_all()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
