"""Read a study's configuration and its site, and say in a sentence what is wrong with them."""

from __future__ import annotations

from sagebench.errors import run_script
from sagebench.grid.freeze import study_of, study_parser


def main() -> None:
    study_of(study_parser(__doc__).parse_args())


if __name__ == "__main__":
    run_script(main)
