"""Temporary folders whose paths are short enough for a socket."""

from __future__ import annotations

import shutil
import tempfile
import weakref


def short_folder(owner: object) -> str:
    """Path of a new temporary folder, removed with its owner.

    Loader processes meet at sockets below TMPDIR, whose paths may have 107 characters; the folder
    of a test, with the test's and the user's name in it, can leave too few.
    """
    folder = tempfile.mkdtemp(prefix="sagebench-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
