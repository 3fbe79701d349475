"""The test image, from Debian's packages and wheels, by the install step of the other images."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from bed.commands import BedError, run, say, write
from bed.layout import Layout

ROOT = Path(__file__).resolve().parents[3]
DEFINITION = Path("container/testbed.def")
REQUIREMENTS = (Path("envs/torch.txt"), Path("envs/container-current.txt"))
SOURCES = (DEFINITION, Path("container/install.sh"), *REQUIREMENTS)
# apt does not work in %post: what the image has from Debian is in its base.
BASE = ("python3-venv", "python3-pip", "ca-certificates", "libgomp1")
SUITE = "bookworm"
BASE_PYTHON = "/usr/bin/python3"


def build_image(bed: Layout) -> Path:
    """The image's path; built where it is not there, or where what it is made of has changed."""
    key = _key()
    key_file = bed.image.with_suffix(".key")
    if bed.image.exists() and key_file.exists() and key_file.read_text() == key:
        return bed.image
    if not bed.apptainer.exists():
        raise BedError("Apptainer is not here: run `testbed.py install` first")
    work = bed.state / "image"
    rootfs = _base(work)
    wheels = _wheels(work)
    new = bed.image.with_suffix(".new.sif")
    bed.image.parent.mkdir(parents=True, exist_ok=True)
    (work / "tmp").mkdir(exist_ok=True)
    say(f"building {bed.image}")
    run(
        [
            *(bed.apptainer, "build", "--force"),
            *("--mksquashfs-args", "-Xcompression-level 1"),  # quickly, rather than small
            *("--build-arg", f"rootfs={rootfs}", "--build-arg", f"wheels={wheels}"),
            *(new, DEFINITION),
        ],
        limit_s=1200,
        cwd=ROOT,
        env={"APPTAINER_TMPDIR": str(work / "tmp"), "APPTAINER_CACHEDIR": str(work / "cache")},
    )
    new.replace(bed.image)
    write(key_file, key)
    shutil.rmtree(wheels)
    return bed.image


def _key() -> str:
    """Changes with every file that the image is made of."""
    digest = hashlib.sha256(" ".join((SUITE, *BASE)).encode())
    for source in SOURCES:
        digest.update((ROOT / source).read_bytes())
    return digest.hexdigest()


def _base(work: Path) -> Path:
    """A folder with Debian and Python in it, made once."""
    rootfs = work / "rootfs"
    if (work / "rootfs.done").exists():
        return rootfs
    say(f"unpacking Debian {SUITE} into {rootfs}")
    shutil.rmtree(rootfs, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    include = f"--include={','.join(BASE)}"
    run(["debootstrap", "--variant=minbase", include, SUITE, rootfs], limit_s=900)
    # A user namespace of one user can make neither device nodes nor files of another group.
    for entry in (rootfs / "dev").iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    run(["chown", "-R", "0:0", rootfs])
    for archive in (rootfs / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    write(work / "rootfs.done", "")
    return rootfs


def _wheels(work: Path) -> Path:
    """A folder with every wheel, found as pip is set up to on this machine."""
    folder = work / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        run([BASE_PYTHON, "-m", "venv", work / "venv"], limit_s=120)
    if run([python, "-c", "import sys; print(*sys.version_info[:2])"]).split() != ["3", "11"]:
        raise BedError(f"{BASE_PYTHON} is not Python 3.11, which the image has: use Debian {SUITE}")
    say("fetching the wheels")
    for requirements in REQUIREMENTS:
        command = [python, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "-d", folder, "-r", ROOT / requirements]
        run(command, limit_s=600, env={"PYTHONNOUSERSITE": "1"})
    return folder
