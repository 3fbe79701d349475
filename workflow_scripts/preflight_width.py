"""One width of a preflight, in its job: start the ranks, gather what they found, write the record.

Exit code 0 means that the record is there, whatever it says: preflight.py tells it.
"""

from __future__ import annotations

from pathlib import Path

from sagebench.errors import run_script, script_parser
from sagebench.files import write_json
from sagebench.grid.freeze import thaw
from sagebench.preflight.width import check_width


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--study", required=True, metavar="FROZEN", help="the frozen study")
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the record to write")
    arguments = parser.parse_args()
    directory = arguments.out.with_suffix("")
    record = check_width(thaw(arguments.study), arguments.ranks, directory)
    write_json(arguments.out, record)
    for said in [*(record["problems"] or ["ok"]), *record["unknown"]]:
        print(said)


if __name__ == "__main__":
    run_script(main)
