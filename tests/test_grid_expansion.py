"""Experiments become trials."""

from __future__ import annotations

from configurations import CLUSTER, GOOD, changed, study_of
from hypothesis import given
from hypothesis import strategies as st
from sagebench import registry
from sagebench.grid.configuration import types
from sagebench.grid.freeze import Freezer, load_frozen
from sagebench.grid.trial import FIELD_NAMES


def trials(study, experiment):
    (ids,) = [e.trials for e in study.experiments if e.name == experiment]
    return [study.requests[trial_id].trial for trial_id in ids]


def test_product_zip_and_fixed():
    batch = trials(study_of(GOOD), "batch")
    assert [(t.engine, t.batch_size, t.accumulation) for t in batch] == [
        ("blocks", 64, 4),
        ("blocks", 128, 2),
        ("blocks", 256, 1),
        ("reference", 64, 4),
        ("reference", 128, 2),
        ("reference", 256, 1),
    ]
    assert {(t.dropout, t.epochs, t.seed) for t in batch} == {(0.2, 3, 0)}


def test_lists_and_seeds():
    scaling = trials(study_of(GOOD), "scaling")
    assert [(t.ranks, t.seed) for t in scaling] == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_every_value_of_a_trial_is_given():
    """One that is not would silently be that of trials before it existed."""
    of_request = {"walltime_min", "continue_after_walltime"}
    elsewhere = {"dataset", "device", "machine", "seed", "options"}
    given = set(types().KEYS) - set(registry.option_owners()) - of_request
    assert given | elsewhere == set(FIELD_NAMES)


def test_the_site_decides_device_and_machine():
    (trial, *_) = trials(study_of(GOOD), "batch")
    assert (trial.device, trial.machine) == ("cpu", "workstation")


@given(
    st.lists(st.integers(1, 999), min_size=1, max_size=5, unique=True),
    st.lists(st.sampled_from(["mean", "sum", "max"]), min_size=1, unique=True),
    st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_the_number_of_trials_is_the_product_of_the_axes(batches, aggregators, epochs, seeds):
    experiment = {
        "axis": "batch_size",
        "product": {"aggregator": aggregators},
        "zip": {"batch_size": batches, "accumulation": batches},
        "list": [{"epochs": number} for number in epochs],
        "seeds": seeds,
    }
    study = study_of({**GOOD, "experiments": {"one": experiment}})
    assert len(study.requests) == len(batches) * len(aggregators) * len(epochs) * len(seeds)


def test_experiments_that_ask_for_the_same_trial_share_it():
    twin = {"axis": "batch_size", "product": {"ranks": [1, 2, 4]}, "seeds": [0, 1]}
    study = study_of(changed("experiments.twin", twin))
    assert len(study.requests) == 6 + 6
    assert set(study.experiments[1].trials) < set(study.experiments[2].trials)


def test_a_shared_trial_gets_the_longer_walltime():
    twin = {"axis": "batch_size", "fixed": {"walltime_min": 90}, "seeds": [0, 1]}
    study = study_of(changed("experiments.twin", twin))
    (trial_id, _) = study.experiments[2].trials
    assert study.requests[trial_id].walltime_min == 90


def test_a_shared_trial_continues_if_one_of_its_experiments_says_so():
    fixed = {"walltime_min": 5, "continue_after_walltime": True}
    twin = {"axis": "batch_size", "fixed": fixed, "seeds": [0, 1]}
    before, study = study_of(GOOD), study_of(changed("experiments.twin", twin))
    (trial_id, _) = study.experiments[2].trials
    assert study.requests[trial_id].continues and study.requests[trial_id].walltime_min == 60
    assert before.requests.keys() == study.requests.keys()  # it is no part of their identity
    assert sum(request.continues for request in study.requests.values()) == 2


def test_another_option_of_one_experiment_leaves_the_others_ids_alone():
    before = study_of(GOOD)
    after = study_of(changed("experiments.batch.fixed.dropout", 0.3))
    assert before.experiments[1] == after.experiments[1]
    assert not set(before.experiments[0].trials) & set(after.experiments[0].trials)


def test_an_added_value_adds_only_its_trials():
    columns = {"batch_size": [64, 128, 256, 512], "accumulation": [4, 2, 1, 1]}
    before, after = study_of(GOOD), study_of(changed("experiments.batch.zip", columns))
    assert set(before.requests) < set(after.requests)
    assert len(after.requests) - len(before.requests) == 2


def test_an_experiment_may_have_its_own_data_set():
    own = {"name": "made", "source": "synthetic", "scale": 0.01}
    study = study_of(changed("experiments.scaling.dataset", own))
    assert {spec["name"] for spec in study.stores.values()} == {"pubmed", "made"}
    assert {trial.dataset["name"] for trial in trials(study, "scaling")} == {"made"}
    for request in study.requests.values():
        assert study.stores[request.store] == request.trial.dataset


def test_a_frozen_study_thaws_to_the_same_trials(tmp_path):
    study = study_of({**GOOD, "results": str(tmp_path)})
    freezer = Freezer(study)
    freezer.write([next(iter(study.requests))], study.stores)
    assert load_frozen(freezer.path).requests == study.requests
    assert Freezer(load_frozen(freezer.path)).path == freezer.path
    assert len(list((tmp_path / "trials").iterdir())) == 1


def test_freezing_again_rewrites_nothing(tmp_path):
    study = study_of({**GOOD, "results": str(tmp_path)})
    freezer = Freezer(study)
    freezer.write(study.requests, study.stores)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    freezer.write(study.requests, study.stores)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}


def test_what_is_off_is_as_if_not_given():
    """A data set's store and its trials do not depend on whether a default is written out."""
    spec = {"name": "mine", "source": "arrays", "path": "mine.npz"}
    off = {"undirected": False, "unlabelled": False, "num_classes": None, "sha256": "0" * 64}
    one, other = (study_of(changed("dataset", {**spec, **more})) for more in ({}, off))
    assert one.stores.keys() == other.stores.keys()
    assert one.requests.keys() == other.requests.keys()
    undirected = study_of(changed("dataset", {**spec, "undirected": True, "num_classes": 4}))
    assert not undirected.stores.keys() & one.stores.keys()


def test_how_a_site_takes_memory_moves_no_trial():
    plain, growing = (
        study_of(GOOD, {**CLUSTER, "expandable_segments": asked}) for asked in (False, True)
    )
    assert set(plain.requests) == set(growing.requests)
