"""Every wait for a job has an end, whatever Slurm calls it, or if it calls it nothing any more."""

from __future__ import annotations

import asyncio
import inspect

import snakemake_executor_plugin_slurm as plugin
from sagebench.slurm.snakemake import GONE, LOST_AFTER_S, bound_waits, bounded


class Slurm:
    """Answers as the test says; `ask(after_s)` is the plugin's question."""

    def __init__(self):
        self.answer, self.now_s = {}, 0.0
        self.query = bounded(self.said, lambda: self.now_s)

    async def said(self, command, logger):
        return self.answer, 0.1

    def ask(self, after_s=1.0):
        self.now_s += after_s
        return asyncio.run(self.query("squeue", None))[0]


def test_states_are_one_word():
    slurm = Slurm()
    slurm.answer = {"1": "CANCELLED by 1000", "2": "RUNNING", "3": ""}
    assert slurm.ask() == {"1": "CANCELLED", "2": "RUNNING"}


def test_a_job_that_slurm_has_forgotten_is_gone_after_a_while():
    slurm = Slurm()
    slurm.answer = {"1": "RUNNING", "2": "RUNNING"}
    slurm.ask()
    slurm.answer = {"2": "RUNNING"}
    assert slurm.ask() == {"2": "RUNNING"}
    assert slurm.ask(LOST_AFTER_S - 1) == {"2": "RUNNING"}
    assert slurm.ask(2) == {"1": GONE, "2": "RUNNING"}


def test_a_preempted_job_is_waited_for_as_long_as_it_may_start_again():
    slurm = Slurm()
    slurm.answer = {"1": "PREEMPTED", "2": "NODE_FAIL"}
    assert slurm.ask() == slurm.answer
    slurm.answer = {"1": "PENDING", "2": "NODE_FAIL"}
    assert slurm.ask(LOST_AFTER_S - 1) == slurm.answer
    assert slurm.ask(2) == {"1": "PENDING", "2": GONE}
    slurm.answer = {"1": "PREEMPTED"}
    assert slurm.ask() == {"1": "PREEMPTED", "2": GONE}  # its second time, counted anew


def test_while_slurm_does_not_answer_nothing_is_gone():
    slurm = Slurm()
    slurm.answer = {"1": "RUNNING"}
    slurm.ask()
    slurm.answer = None
    assert slurm.ask(10 * LOST_AFTER_S) is None
    slurm.answer = {"1": "RUNNING"}
    assert slurm.ask() == {"1": "RUNNING"}


def test_the_plugin_asks_this_way(monkeypatch):
    """Its loop takes the function from its module, and knows our word for what is gone."""
    monkeypatch.setattr(plugin, "query_job_status", before := plugin.query_job_status)
    bound_waits()
    assert plugin.query_job_status is not before
    loop = inspect.getsource(plugin.Executor.check_active_jobs)
    assert "await query_job_status(" in loop and f'status == "{GONE}"' in loop


def test_a_plugin_that_asks_in_another_way_is_told_loudly(monkeypatch, capsys):
    monkeypatch.delattr(plugin, "query_job_status")
    bound_waits()
    assert not hasattr(plugin, "query_job_status")
    assert capsys.readouterr().err.startswith("WARNING: Snakemake's Slurm plugin of this version")
