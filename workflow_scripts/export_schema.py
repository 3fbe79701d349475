"""Write the JSON schema of configuration files, from the types that check them."""

from __future__ import annotations

from sagebench.errors import run_script, script_parser
from sagebench.files import write_json
from sagebench.grid.configuration import json_schema


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--out", default="config/schema.json", help="default: %(default)s")
    write_json(parser.parse_args().out, json_schema())


if __name__ == "__main__":
    run_script(main)
