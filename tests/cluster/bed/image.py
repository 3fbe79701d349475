"""The test image, from Debian's packages and wheels, by the install step of the other images."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from bed.commands import BedError, run, say, write
from bed.layout import Layout

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from sagebench.errors import UserError  # noqa: E402
from sagebench.launch import container as image  # noqa: E402

DEFINITION = Path("container/testbed.def")
REQUIREMENTS = (Path("envs/torch.txt"), Path("envs/container-current.txt"))
# apt does not work in %post: what the image has from Debian is in its base.
BASE = ("python3-venv", "python3-pip", "ca-certificates", "libgomp1")
SUITE = "bookworm"
BASE_PYTHON = "/usr/bin/python3"
BUILD_LIMIT_S = 1200


def build_image(bed: Layout) -> Path:
    """The image's path; built where it is not there, or where what it is made of has changed."""
    site = _site(bed)
    if image.is_current(site):
        return bed.image
    prepare_base(bed)
    say(f"building {bed.image}")
    try:
        with _limit(BUILD_LIMIT_S), redirect_stdout(sys.stderr):
            image.build_image(site)
    except UserError as error:
        raise BedError(str(error)) from None
    shutil.rmtree(_wheels(bed))
    return bed.image


def prepare_base(bed: Layout) -> list[str]:
    """Make what the definition starts from, where the image is not built from it yet, and return
    the options to build it with, as a site's image_build_options has them."""
    if not bed.apptainer.exists():
        raise BedError("Apptainer is not here: run `testbed.py install` first")
    site = _site(bed)
    if not image.is_current(site):
        _unpack_base(_rootfs(bed))
        _fetch_wheels(bed)
    return site["image_build_options"]


def _site(bed: Layout) -> dict[str, Any]:
    """What a site says of this image."""
    return {
        "image": str(bed.image),
        "image_definition": str(DEFINITION),
        "image_build_options": build_options(bed),
        "apptainer": str(bed.apptainer),
        "modules": [],
    }


def build_options(bed: Layout) -> list[str]:
    return [
        "--mksquashfs-args=-Xcompression-level 1",  # quickly, rather than small
        f"--build-arg=rootfs={_rootfs(bed)}",
        f"--build-arg=wheels={_wheels(bed)}",
    ]


@contextmanager
def _limit(limit_s: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise BedError(f"the image was not built within {limit_s} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(limit_s)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _rootfs(bed: Layout) -> Path:
    return bed.state / "image" / "rootfs"


def _wheels(bed: Layout) -> Path:
    return bed.state / "image" / "wheels"


def _unpack_base(rootfs: Path) -> None:
    """Make a folder with Debian and Python in it, once."""
    done = rootfs.with_name("rootfs.done")
    made_of = " ".join((SUITE, *BASE))
    if done.exists() and done.read_text() == made_of:
        return
    say(f"unpacking Debian {SUITE} into {rootfs}")
    shutil.rmtree(rootfs, ignore_errors=True)
    rootfs.parent.mkdir(parents=True, exist_ok=True)
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
    write(done, made_of)


def _fetch_wheels(bed: Layout) -> None:
    """Fetch every wheel, as pip is set up to on this machine."""
    folder = _wheels(bed)
    folder.mkdir(parents=True, exist_ok=True)
    venv = folder.with_name("venv")
    python = venv / "bin" / "python"
    if not python.exists():
        run([BASE_PYTHON, "-m", "venv", venv], limit_s=120)
    if run([python, "-c", "import sys; print(*sys.version_info[:2])"]).split() != ["3", "11"]:
        raise BedError(f"{BASE_PYTHON} is not Python 3.11, which the image has: use Debian {SUITE}")
    say("fetching the wheels")
    for requirements in REQUIREMENTS:
        command = [python, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "-d", folder, "-r", ROOT / requirements]
        run(command, limit_s=600, env={"PYTHONNOUSERSITE": "1"})
