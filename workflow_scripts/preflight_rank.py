"""One rank of a preflight, in the container: checks, and writes rank-R.json.

preflight_width.py starts this, as a trial's ranks are started; nobody else needs it.
"""

from __future__ import annotations

import json
import os
import sys

from sagebench.errors import run_script, script_parser


def main() -> int:
    parser = script_parser(__doc__)
    parser.add_argument("checks", type=json.loads, help="what check_rank takes, as JSON")
    arguments = parser.parse_args()
    from sagebench.preflight.rank import check_rank

    error = check_rank(**arguments.checks)
    if error is None:
        return 0
    # Peers may wait for this rank in a collective; a tidy shutdown would wait for them.
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    run_script(main)
