"""Make graphs whose raw files a package manager has: wordnet-3.1.npz, wordnet-3.0.npz, debian.npz,
and sources.json, which says where they came from."""

from __future__ import annotations

from pathlib import Path

from sagebench.errors import run_script, script_parser
from sagebench.graph.packaged import make


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of the .npz files")
    print(*make(parser.parse_args().out), sep="\n")


if __name__ == "__main__":
    run_script(main)
