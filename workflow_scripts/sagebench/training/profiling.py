"""A profile of a trial's micro-steps: which kernels took how long, and a trace to look at."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.profiler import ProfilerActivity, profile, record_function

from sagebench.attempts import PROFILE
from sagebench.training.trainer import Trainer, synchronise_device

TABLE, TRACE = PROFILE
TRACE_LIMIT_BYTES = 15 << 20
ROWS = 60


def profile_steps(trainer: Trainer, epoch: int, steps: int, directory: Path | None) -> None:
    """Train `steps` more micro-steps as an epoch does, sampling in the background, under torch's
    profiler; writes `profile.txt` and `trace.json.gz` (for chrome://tracing or ui.perfetto.dev)
    into `directory`.

    directory: None on ranks that only take part. Changes the weights: to be called last. A trace of
    more than 15 MiB is not kept; the table says so.
    """
    device = trainer.device
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    trainer.engine.model.train()
    profiler = profile(activities=activities) if directory is not None else None
    with profiler or nullcontext():
        micro_batches = trainer.order.micro_batches(epoch, trainer.communicator.rank)
        for batch in trainer.engine.stream(islice(micro_batches, steps)):
            last = batch.micro_batch.last_of_step
            with record_function("micro-step"):
                trainer.micro_step(batch, synchronise=last)
            if last:
                trainer.optimizer_step()
        synchronise_device(device)
    if profiler is None or directory is None:
        return
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    averages = profiler.key_averages()
    table = averages.table(sort_by=order, row_limit=ROWS, max_name_column_width=80)
    said = _write_trace(profiler.export_chrome_trace, directory / TRACE)
    (directory / TABLE).write_text(f"{steps} micro-steps; {said}\n{table}\n")


def _write_trace(export: Callable[[str], None], path: Path) -> str:
    """The trace by torch's `export`, compressed; returns what became of it."""
    with TemporaryDirectory(dir=path.parent) as folder:  # no place for torch's own, nor half a one
        whole = Path(folder, path.name)
        export(str(whole.with_suffix("")))
        with whole.with_suffix("").open("rb") as plain, gzip.open(whole, "wb") as packed:
            shutil.copyfileobj(plain, packed)
        size = whole.stat().st_size
        if size <= TRACE_LIMIT_BYTES:
            whole.replace(path)
            return f"their trace: {path.name}"
    return f"their trace of {size / 2**20:.0f} MiB is not kept: write fewer profile_steps"
