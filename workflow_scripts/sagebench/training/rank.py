"""Entry point of one rank: the trial's method, and how it ends: through, as a measured end (out of
memory, time limit, divergence), or failed."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sagebench import registry
from sagebench.attempts import EARLY_END_CODE, RankEarlyEnd
from sagebench.errors import UserError
from sagebench.grid.trial import Trial
from sagebench.measure import machine
from sagebench.measure.allocator import exhausted_limit
from sagebench.measure.clocks import PhaseClock
from sagebench.measure.memory import allocators_error, lift_limit
from sagebench.records import Measured, Reason, Status, Timing
from sagebench.training.distributed import RankEnvironment
from sagebench.training.setup import EarlyEnd, RankSetup
from sagebench.training.trainer import synchronise_device
from sagebench.units import GIB


def run_rank(
    trial: Trial,
    store_path: Path,
    directory: Path,
    run: Callable[..., RankSetup] | None = None,
) -> int:
    """Run one rank of `trial` and return the process's exit code.

    run: what is run of it, a class of RankSetup; None: the class `Run` of its method's module, or
    the function `run`, measured.
    Rank 0 writes `measured.json` into `directory`, anew after each epoch. A rank that runs out of
    memory or time, or diverges, writes its own record there and returns EARLY_END_CODE. Where
    $SAGEBENCH_CHECKPOINT names a file, the trial is saved there, and goes on from it.
    Raises UserError for what the user can mend; any other exception is a failure.
    """
    env = RankEnvironment.read()
    if env.world_size != trial.ranks:
        raise UserError(
            f"the trial has {trial.ranks} ranks but {env.world_size} were started: start "
            f"{trial.ranks}, for instance with workflow_scripts/run_trial.py"
        )
    device = choose_device(trial.device, env)
    clock = PhaseClock(lambda: synchronise_device(device))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        if run is None:
            method = registry.load("method", trial.method)
            run = getattr(method, "Run", None) or partial(MethodRun, method.run)
        run(trial, store_path, directory, env, device, clock).run()
    except UserError:
        raise
    except BaseException as error:
        lift_limit(device)
        traceback.print_exc()
        end = explain(error, device, trial.memory_limit_gib)
        if end is None:
            return 1
        counted = machine.collect_allocator(device)
        reason = Reason(env.rank, clock.phase, str(end), end.limit)
        RankEarlyEnd(end.status, time.time(), reason, counted).write(directory)
        print(f"rank {env.rank}: {end.status} in {clock.phase}: {end}", file=sys.stderr)
        return EARLY_END_CODE
    return 0


def explain(error: BaseException, device: torch.device, limit_gib: float | None) -> EarlyEnd | None:
    """`error` as a measured end, or None where it is a failure."""
    if isinstance(error, EarlyEnd):
        return error
    allocators = allocators_error(error, device)
    if allocators is None:
        return None
    limit = exhausted_limit(str(allocators), device.type, limit_gib)
    if limit.kind == "device_memory":
        total = torch.cuda.get_device_properties(device).total_memory
        limit = replace(limit, value=round(total / GIB, 2))
    message = str(error).strip().splitlines() or [type(error).__name__]
    return EarlyEnd(Status.OUT_OF_MEMORY, message[0][:500], limit)


def choose_device(kind: str, env: RankEnvironment) -> torch.device:
    """The rank's device, "cpu" or "cuda" as asked: there is no falling back to another."""
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if env.local_rank >= count:
        raise UserError(
            f"device: cuda is asked for, but local rank {env.local_rank} finds {count} GPUs here: "
            "start it where there are enough, or write device: cpu"
        )
    torch.cuda.set_device(env.local_rank)
    return torch.device("cuda", env.local_rank)


class MethodRun(RankSetup):
    """A whole trial of a method that is one function: what it returns, and what it took.

    method: `run(trial, store, communicator, progress)`; what it leaves None is noted here.
    """

    def __init__(self, method: Callable[..., Measured], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.method = method
        self.open()

    def run(self) -> None:
        self.begin_measuring()
        self.describe()
        self.note_first_step()
        start = time.perf_counter()
        with self.measuring(), self.clock("method"):
            found = self.method(self.trial, self.store, self.communicator, self.progress)
        training_s = time.perf_counter() - start
        self.sum_up()
        for name, value in vars(found).items():
            if value not in (None, []):
                setattr(self.measured, name, value)
        if self.measured.timing is None:
            self.measured.timing = Timing(training_s=training_s, total_s=self.elapsed_s)
        self.measured.complete = True
        self.write()
        self.communicator.close()
