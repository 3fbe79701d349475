"""Apptainer from Debian sid's package, on a Debian that has none.

The package is built against a newer C library than this system's: it is unpacked beside that
library, and its programs are told to use it. The system's own packages and lists stay as they are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bed.commands import BedError, run, say, write
from bed.layout import Layout

VERSION = "1.4."  # what the images are built and tested with
PACKAGES = ("apptainer", "libc6", "libseccomp2", "libsqlite3-0")
MULTIARCH = "usr/lib/x86_64-linux-gnu"
PROGRAMS = ("usr/bin/apptainer", f"{MULTIARCH}/apptainer/bin/starter")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

WRAPPER = """#!/bin/sh
# Written by tests/cluster/testbed.py. Root without every capability, as in a sandbox, can use
# Apptainer in a user namespace of its own only.
effective=$(sed -n 's/^CapEff:[[:space:]]*/0x/p' /proc/self/status)
last=$(cat /proc/sys/kernel/cap_last_cap)
if [ "$(id -u)" = 0 ] && [ $((effective)) -ne $(((1 << (last + 1)) - 1)) ]; then
    APPTAINER_USERNS=1
    export APPTAINER_USERNS
    if [ "$1" = build ]; then
        exec unshare -Ur {program} "$@"
    fi
fi
exec {program} "$@"
"""


def install_apptainer(bed: Layout) -> None:
    """Unpack it to STATE/apptainer and write the wrapper STATE/bin/apptainer; nothing to do where
    that works already."""
    if bed.apptainer.exists() and _version(bed).startswith(VERSION):
        return
    say("unpacking Debian sid's Apptainer with its own C library")
    root, packages = bed.state / "apptainer", bed.state / "debs"
    for folder in (root, packages):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    _download(packages)
    libraries = root / "sid"
    for archive in packages.glob("*.deb"):
        inside = root if archive.name.startswith("apptainer_") else libraries
        run(["dpkg", "-x", archive, inside])
    _use_libraries(root, libraries / MULTIARCH)
    # Moved, it looks for its settings and its mount point under what it takes for its prefix: usr,
    # and, for the starter, usr/lib.
    for prefix in ("usr", "usr/lib"):
        for folder in ("etc", "var"):
            (root / prefix / folder).symlink_to(root / folder)
    write(bed.apptainer, WRAPPER.format(program=root / PROGRAMS[0]))
    bed.apptainer.chmod(0o755)
    if not _version(bed).startswith(VERSION):
        raise BedError(
            f"Debian sid has Apptainer {_version(bed)}, and {VERSION}x is tested: "
            "try it, and change VERSION in tests/cluster/bed/apptainer.py"
        )
    say(f"apptainer {_version(bed)} is in {bed.apptainer}")
    shutil.rmtree(packages)


def _version(bed: Layout) -> str:
    return run([bed.apptainer, "--version"]).split()[-1]


def _download(folder: Path) -> None:
    """Fetch the packages with a source list and a state of their own."""
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "archives/partial").mkdir(parents=True)
    (folder / "status").touch()
    source = f"deb [signed-by={KEYRING}] {_debian_mirror()} sid main\n"
    (folder / "sources.list").write_text(source)
    options = [
        option
        for name, value in {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder,
            "APT::Sandbox::User": "root",
            "APT::Get::List-Cleanup": "false",
        }.items()
        for option in ("-o", f"{name}={value}")
    ]
    run(["apt-get", *options, "update", "-q"], limit_s=300)
    run(["apt-get", *options, "download", "-q", *PACKAGES], limit_s=300, cwd=folder)


def _debian_mirror() -> str:
    """The address that this machine's own apt gets Debian from."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in files:
        if not file.is_file() or file.suffix not in (".list", ".sources"):
            continue
        for line in file.read_text().splitlines():
            words = line.split()
            address = next((word for word in words if "://" in word), "").rstrip("/")
            if words and words[0] in ("deb", "URIs:") and address.endswith("/debian"):
                return address
    raise BedError("/etc/apt names no Debian mirror: write one into /etc/apt/sources.list")


def _use_libraries(root: Path, folder: Path) -> None:
    """Have the programs use the libraries in `folder`, and the helpers found by those names."""
    loader = next(folder.glob("ld-linux-x86-64.so.2"), None)
    if loader is None:
        raise BedError(f"libc6 has no ld-linux-x86-64.so.2 in {folder}")
    for name in PROGRAMS:
        program = root / name
        # RPATH and not RUNPATH: the libraries' own needs are looked up by it too.
        run(["patchelf", "--set-interpreter", loader, program])
        run(["patchelf", "--force-rpath", "--set-rpath", folder, program])
