"""Build a site's container image from its definition, where it was not built from the same before.

Prints what Apptainer says, and last the image's digest.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from sagebench.errors import UserError, run_script, script_parser
from sagebench.files import read_json
from sagebench.launch.container import build_image, image_digest


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--study", type=Path, required=True, help="the frozen study, for its site")
    arguments = parser.parse_args()
    # A batch system ends a job with SIGTERM: as an exception it takes the half-built image along.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    site = read_json(arguments.study)["site"]
    if site["image"] is None or site["image_definition"] is None:
        raise UserError(
            f"the site of {arguments.study} names no image and image_definition: write both in its "
            "profile's site.yaml, e.g. container/sagebench.sif and container/current.def"
        )
    image = Path(site["image"])
    try:
        build_image(site)
    except OSError as error:
        raise UserError(f"the image {image} cannot be written: {error}") from None
    print(f"{image}: {image.stat().st_size / 1e6:,.0f} MB, {image_digest(image)}")


if __name__ == "__main__":
    run_script(main)
