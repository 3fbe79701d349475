"""Every model, engine and sampler trains on the real launcher, and learns."""

import pytest
from sagebench import registry
from trial_runs import Run
from trials import make_trial, tiny_store

OPTIONS = {"gat": {"heads": 2}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store") / "tiny").path


@pytest.mark.parametrize("sampler", ["sagebench", "labor"])
@pytest.mark.parametrize("engine", ["blocks", "bipartite"])
@pytest.mark.parametrize("model", registry.names("model"))
def test_a_trial_completes_and_learns(tmp_path, store, model, engine, sampler):
    engines = registry.declared("model", model).get("ENGINES", [engine])
    trial = make_trial(
        model=model,
        options=OPTIONS.get(model, {}),
        engine=engine if engine in engines else "reference",
        sampler=sampler,
        ranks=2,
        epochs=5,
        learning_rate=0.03,
    )
    run = Run(tmp_path / "run", trial, store)
    finished = run.finish()
    assert finished.returncode == 0, finished.stderr
    losses = [epoch["loss"] for epoch in run.outcome["epochs"]]
    assert losses[-1] < losses[0]
