"""One width of a preflight, in its job: start the ranks, gather what they found, write the record.

Exit code 0 means that the record is there, whatever it says: preflight.py tells it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sagebench.errors import run_script
from sagebench.files import write_json
from sagebench.grid.freeze import thaw
from sagebench.preflight.needs import needs
from sagebench.preflight.width import check_width


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--study", type=Path, required=True, metavar="FROZEN", help="the frozen study"
    )
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--place", type=json.loads, required=True, help="the geometry, as JSON")
    parser.add_argument(
        "--stores", type=Path, nargs="*", default=[], help="graph stores; the first that is there"
    )
    parser.add_argument("--results", type=Path, required=True, help="the results' folder")
    parser.add_argument("--out", type=Path, required=True, help="the record to write")
    arguments = parser.parse_args()
    study = thaw(arguments.study)
    stores = (store for store in arguments.stores if (store / "manifest.json").exists())
    record = check_width(
        arguments.ranks,
        study.site.model_dump(mode="json"),
        arguments.place,
        arguments.results,
        next(stores, None),
        arguments.out.with_suffix(""),
        needs(study, arguments.results / "stores"),
    )
    write_json(arguments.out, record)
    for said in [*(record["problems"] or ["ok"]), *record["unknown"]]:
        print(said)


if __name__ == "__main__":
    run_script(main)
