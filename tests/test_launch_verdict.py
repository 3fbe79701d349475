"""The first cause decides, not its consequences."""

import signal

import pytest
import torch
from sagebench.attempts import EARLY_END_CODE, RankEarlyEnd
from sagebench.launch.ends import RankEnd, decide
from sagebench.records import Limit, Reason, Status
from sagebench.training.rank import explain

PEER_GONE = "RuntimeError: [gloo] Connection closed by peer [127.0.0.1]:4242"


def early(rank, status, at=1.0, phase="forward", **values):
    reason = Reason(rank, phase, "why", Limit("memory_limit", 1.0, "GiB"))
    early_end = RankEarlyEnd(status, at, reason)
    return RankEnd(rank, EARLY_END_CODE, early_end=early_end, **{"order": 0, **values})


def test_all_ranks_complete():
    ends = [RankEnd(0, 0, 0), RankEnd(1, 0, 1)]
    assert decide(ends, complete=True, limit_gib=None).status is Status.COMPLETED


def test_clean_exits_without_measurements_are_a_failure():
    verdict = decide([RankEnd(0, 0, 0)], complete=False, limit_gib=None)
    assert verdict.status is Status.FAILED
    assert "not whole" in verdict.message


@pytest.mark.parametrize("status", [Status.OUT_OF_MEMORY, Status.TIME_LIMIT, Status.DIVERGED])
def test_record_of_one_rank_outweighs_what_it_did_to_the_others(status):
    ends = [RankEnd(0, 1, 0, PEER_GONE), early(1, status, order=1), RankEnd(2, -9, 2, stopped=True)]
    verdict = decide(ends, complete=False, limit_gib=None)
    assert verdict.status is status
    assert verdict.reason.rank == verdict.rank == 1
    assert verdict.reason.phase == "forward"


def test_earliest_record_is_the_cause():
    ends = [early(0, Status.TIME_LIMIT, at=20.0), early(1, Status.OUT_OF_MEMORY, at=10.0, order=1)]
    assert decide(ends, complete=False, limit_gib=None).status is Status.OUT_OF_MEMORY


def test_a_record_of_an_exit_that_was_no_early_end_does_not_count():
    ends = [early(0, Status.OUT_OF_MEMORY)]
    ends = [RankEnd(0, 1, 0, early_end=ends[0].early_end)]
    assert decide(ends, complete=False, limit_gib=None).status is Status.FAILED


@pytest.mark.parametrize(
    ("code", "log"),
    [
        (-signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'"),
        (1, "libgomp: Thread creation failed: Resource temporarily unavailable"),
        (1, "MemoryError"),
        (1, "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_the_allocators_message_proves_out_of_memory(code, log):
    verdict = decide([RankEnd(0, code, 0, log)], complete=False, limit_gib=2.0)
    assert verdict.status is Status.OUT_OF_MEMORY
    assert verdict.reason.limit == Limit("memory_limit", 2.0, "GiB")


@pytest.mark.parametrize("limit_gib", [None, 2.0])
@pytest.mark.parametrize(
    ("device", "log", "of_training"),
    [
        ("cuda", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.21 GiB.", True),
        ("cuda", "RuntimeError: CUDA error: out of memory", True),
        ("cuda", "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `c`", True),
        ("cuda", "RuntimeError: CUDA error: CUSPARSE_STATUS_INSUFFICIENT_RESOURCES", True),
        ("cuda", "MemoryError", False),
        ("cuda", "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", False),
        ("cpu", "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", True),
    ],
)
def test_which_memory_ran_out(device, log, of_training, limit_gib):
    """A trial's own cap is of the memory that it trains in."""
    verdict = decide([RankEnd(0, 1, 0, log)], complete=False, limit_gib=limit_gib, device=device)
    assert verdict.status is Status.OUT_OF_MEMORY
    own = {"cuda": "device_memory", "cpu": "host_memory"}[device] if of_training else "host_memory"
    capped = of_training and limit_gib is not None
    assert verdict.reason.limit.kind == ("memory_limit" if capped else own)
    assert verdict.reason.limit.value == (limit_gib if capped else None)


def test_a_host_without_memory_is_no_full_gpu():
    error = RuntimeError("DataLoader worker exited")
    error.__cause__ = MemoryError()
    end = explain(error, torch.device("cuda", 0), 2.0)
    assert (end.status, end.limit.kind) == (Status.OUT_OF_MEMORY, "host_memory")


@pytest.mark.parametrize(
    ("free_bytes", "status"), [(100 << 20, Status.OUT_OF_MEMORY), (10 << 30, None)]
)
@pytest.mark.parametrize("library", ["CUBLAS", "CUSPARSE"])
def test_a_library_that_does_not_start_proves_a_full_gpu_where_it_is_full(
    monkeypatch, library, free_bytes, status
):
    """They say the same where the driver does not fit them."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_bytes, 80 << 30))
    error = RuntimeError(f"CUDA error: {library}_STATUS_NOT_INITIALIZED when calling `c`")
    end = explain(error, torch.device("cuda", 0), 2.0)
    assert (end and end.status) == status
    assert explain(error, torch.device("cpu"), 2.0) is None


def test_a_gpu_that_has_failed_is_no_full_one(monkeypatch):
    def failed(device):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", failed)
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `c`")
    assert explain(error, torch.device("cuda", 0), None) is None


def test_talk_of_memory_further_up_proves_nothing():
    log = (
        "hint: large batches may run out of memory\n" + "\n".join("abcdef") + "\nValueError: a bug"
    )
    assert decide([RankEnd(0, 1, 0, log)], complete=False, limit_gib=2.0).status is Status.FAILED


def test_ranks_ended_for_their_walltime_reached_the_time_limit():
    ends = [RankEnd(rank, -signal.SIGTERM, 2, stopped=True) for rank in range(2)]
    verdict = decide(ends, complete=False, limit_gib=None, walltime_s=60.0)
    assert verdict.status is Status.TIME_LIMIT
    assert verdict.reason.limit == Limit("walltime", 60.0, "s")


def test_a_crash_before_the_walltime_stays_a_failure():
    ends = [RankEnd(0, 1, 0, "ValueError: a bug"), RankEnd(1, -signal.SIGTERM, 2, stopped=True)]
    assert decide(ends, complete=False, limit_gib=None, walltime_s=60.0).status is Status.FAILED


def test_a_bare_kill_is_a_failure():
    ends = [RankEnd(0, 1, 1, PEER_GONE), RankEnd(1, -signal.SIGKILL, 0)]
    verdict = decide(ends, complete=False, limit_gib=2.0)
    assert verdict.status is Status.FAILED
    assert verdict.message == "rank 1 was ended by SIGKILL"


def test_a_kill_with_the_kernels_word_is_out_of_memory():
    verdict = decide(
        [RankEnd(0, -signal.SIGKILL, 0)],
        complete=False,
        limit_gib=None,
        killed_for_memory=lambda: True,
    )
    assert verdict.status is Status.OUT_OF_MEMORY
    assert verdict.reason.limit.kind == "host_memory"


def test_the_cause_is_told_from_its_consequence_whichever_ended_first():
    ends = [RankEnd(0, 1, 0, PEER_GONE), RankEnd(1, 1, 1, "ValueError: the real one")]
    verdict = decide(ends, complete=False, limit_gib=None)
    assert verdict.rank == 1
    assert "ValueError: the real one" in verdict.message


def test_a_rank_the_launcher_ended_is_no_cause():
    ends = [RankEnd(0, -signal.SIGTERM, 0, stopped=True), RankEnd(1, 3, 1, "bad thing")]
    assert decide(ends, complete=False, limit_gib=None).rank == 1


def test_a_rank_without_a_word_is_the_cause_of_its_peers_end():
    ends = [RankEnd(0, -signal.SIGTERM, 0), RankEnd(1, None, 2, "srun: error: tb2: Node failure")]
    verdict = decide(ends, complete=False, limit_gib=None)
    assert verdict.status is Status.FAILED
    assert verdict.message == "rank 1 left no exit record: srun: error: tb2: Node failure"


def test_slurms_word_for_memory_is_proof():
    ends = [RankEnd(0, 1, 0, PEER_GONE), RankEnd(1, None, 2, "srun: error: task 1: Out Of Memory")]
    assert decide(ends, complete=False, limit_gib=None).status is Status.OUT_OF_MEMORY
    ends = [RankEnd(0, 1, 0, PEER_GONE), RankEnd(1, None, 2)]
    assert decide(ends, complete=False, limit_gib=None, killed_for_memory=lambda: True).rank == 1
