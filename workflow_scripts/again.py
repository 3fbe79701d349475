"""Set outcomes of a study aside, so that the next run measures their trials again."""

from __future__ import annotations

from sagebench.errors import UserError, run_script
from sagebench.grid.again import EXAMPLE, KEYS, matches, parse_where, set_aside
from sagebench.grid.freeze import study_of, study_parser


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument(
        "--where",
        required=True,
        help=f"conditions that must all hold, of {', '.join(KEYS)}; e.g. {EXAMPLE}",
    )
    arguments = parser.parse_args()
    found = list(matches(study_of(arguments), parse_where(arguments.where)))
    if not found:
        raise UserError(f"no outcome of the study has {arguments.where}: nothing to measure again.")
    for match in found:
        print(f"{match.trial} ({match.status}) -> {set_aside(match)}")
    print(f"{len(found)} of the study's outcomes will be measured again by the next run.")


if __name__ == "__main__":
    run_script(main)
