"""A trial's optimizer is Adam (Kingma, Ba 2015), and its results are those there have been."""

from __future__ import annotations

import pytest
import torch
from sagebench.engines.base import make_engine
from sagebench.measure.clocks import PhaseClock
from sagebench.training.distributed import Communicator, Progress, RankEnvironment
from sagebench.training.trainer import EpochSums, Trainer
from trials import make_trial, tiny_store

CPU = torch.device("cpu")


@pytest.fixture
def trainer(tmp_path):
    return make_trainer(tmp_path)


def make_trainer(tmp_path, **values):
    trial = make_trial(dropout=0.5, sampling_workers=0, **values)
    store = tiny_store(tmp_path / "tiny")
    torch.manual_seed(trial.seed)
    engine = make_engine(trial, store, CPU)
    communicator = Communicator(RankEnvironment(), CPU)
    return Trainer(trial, engine, store.train, communicator, PhaseClock(), Progress(False))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_step_is_algorithm_1_of_the_paper(tmp_path, decay):
    trainer = make_trainer(tmp_path, weight_decay=decay)
    parameters = list(trainer.engine.model.parameters())
    values = [parameter.detach().double() for parameter in parameters]
    means = [torch.zeros_like(value) for value in values]
    squares = [torch.zeros_like(value) for value in values]
    for t in range(1, 8):
        for k, parameter in enumerate(parameters):
            parameter.grad = torch.randn_like(parameter)
            gradient = parameter.grad + decay * values[k]
            means[k] = 0.9 * means[k] + 0.1 * gradient
            squares[k] = 0.999 * squares[k] + 0.001 * gradient**2
            rate = trainer.learning_rate / (1 - 0.9**t)
            values[k] = values[k] - rate * means[k] / ((squares[k] / (1 - 0.999**t)) ** 0.5 + 1e-8)
        trainer.optimizer_step()
    assert all(parameter.grad is None for parameter in parameters)
    for parameter, value in zip(parameters, values, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-4, atol=1e-6)


def test_losses_are_those_of_the_adam_before(trainer):
    """As they were with sagebench's own Adam, by torch 2.13 and 2.1."""
    losses = [trainer.epoch(EpochSums(epoch, 3, CPU)).loss for epoch in (1, 2, 3)]
    assert losses == pytest.approx(FORMER, rel=1e-5)


FORMER = [1.4507795569216377, 1.3626392972499974, 1.341391406512812]
