"""Compile a kernel for a GPU that is not there; what it takes of a multiprocessor."""

import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource


def compile_for(kernel, capability, types, constants, warps, aligned=None):
    """`kernel` compiled: types of its arguments in order, constexprs by name. aligned: the
    arguments that are multiples of 16; every pointer, when not given."""
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr")
    if aligned is None:
        aligned = [name for name, kind in signature.items() if kind.startswith("*")]
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    return triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps}
    )


def resources(compiled, capability):
    """Registers a thread, spilled bytes and shared memory of what `compile_for` gave, and how many
    global loads and stores of each width its code has."""
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "kernel.ptx"
        ptx.write_text(compiled.asm["ptx"])
        name = f"sm_{capability}" + ("a" if capability == 90 else "")
        told = subprocess.run(
            [
                get_ptxas(capability).path,
                "-v",
                f"--gpu-name={name}",
                ptx,
                "-o",
                Path(folder) / "kernel.o",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    accesses = {}
    for access in re.findall(r"(?:ld|st)\.global\S*", compiled.asm["ptx"]):
        accesses[access] = accesses.get(access, 0) + 1
    return {
        "registers": int(re.search(r"Used (\d+) registers", told)[1]),
        "spilled_bytes": sum(int(n) for n in re.findall(r"(\d+) bytes spill", told)),
        "shared_bytes": compiled.metadata.shared,
        "convert_layouts": compiled.asm["ttgir"].count("ttg.convert_layout"),
        "accesses": accesses,
    }
