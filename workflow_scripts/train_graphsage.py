"""Train GraphSAGE on one device: a trial with `ranks: 1`."""

from __future__ import annotations

from sagebench.errors import run_script
from train_graphsage_ddp import main

if __name__ == "__main__":
    run_script(lambda: main(__doc__ or ""))
