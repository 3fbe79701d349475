"""Every bad value gets one sentence: where it is, what it is, what to write instead."""

from __future__ import annotations

import pytest
import yaml
from configurations import CLUSTER, GOOD, REMOVED, WORKSTATION, changed, study_of
from sagebench.errors import UserError
from sagebench.grid.freeze import load_study

FIXED = "experiments.batch.fixed"
# where it is put, what is put there, what the sentence must hold beside the value: path and advice
BAD = [
    # unknown keys
    ("studdy", "x", "studdy", "write study"),
    ("default", {}, "default", "write defaults"),
    ("defaults.lr", 0.1, "defaults.lr", "write learning_rate"),
    ("defaults.batchsize", 64, "defaults.batchsize", "write batch_size"),
    ("defaults.gpus", 2, "defaults.gpus", "write ranks"),
    ("defaults.device", "cuda", "defaults.device", "site.yaml"),
    (f"{FIXED}.seed", 3, f"{FIXED}.seed", "write seeds: [0]"),
    ("experiments.batch.axs", "ranks", "experiments.batch.axs", "write axis"),
    ("experiments.batch.zip.fanouts", [[1]], "experiments.batch.zip.fanouts", "write fanout"),
    ("experiments.scaling.list.0.rank", 1, "experiments.scaling.list[0].rank", "write ranks"),
    ("dataset.splt", "large", "dataset.splt", "write split"),
    ("zzz", 1, "zzz", "write one of extends, study, results"),
    # wrong types
    ("defaults.learning_rate", "1e-3", "defaults.learning_rate", "0.001 without quotes"),
    ("defaults.learning_rate", "fast", "defaults.learning_rate", "a number above 0"),
    ("defaults.batch_size", "64", "defaults.batch_size", "64 without quotes"),
    ("defaults.batch_size", 64.5, "defaults.batch_size", "a whole number from 1"),
    ("defaults.batch_size", True, "defaults.batch_size", "a whole number from 1"),
    ("defaults.batch_size", [64], "defaults.batch_size", "a whole number from 1"),
    ("defaults.batch_size", None, "defaults.batch_size", "a whole number from 1"),
    ("defaults.patience_evaluations", "none", "defaults.patience_evaluations", "or null for none"),
    ("defaults.memory_limit_gib", "40GB", "defaults.memory_limit_gib", "a number above 0"),
    ("defaults", [1], "defaults", "keys and their values"),
    ("experiments", ["batch"], "experiments", "keys and their values"),
    ("experiments.batch", "all", "experiments.batch", "keys and their values"),
    ("experiments.batch.seeds", 3, "experiments.batch.seeds", "a list, e.g. [3]"),
    ("experiments.batch.seeds", ["x"], "experiments.batch.seeds[0]", "a whole number"),
    ("experiments.batch.product.engine", "blocks", "product.engine", "a list, e.g. [blocks]"),
    ("experiments.batch.zip.batch_size.2", "big", "experiments.batch.zip.batch_size[2]", "number"),
    ("experiments.batch.title", 5, "experiments.batch.title", "a line of text"),
    # out of range, not one of the words
    ("defaults.batch_size", 0, "defaults.batch_size", "from 1 to"),
    ("defaults.epochs", -1, "defaults.epochs", "from 1 to"),
    ("defaults.dropout", 1.0, "defaults.dropout", "at least 0 and below 1"),
    ("defaults.learning_rate", 0, "defaults.learning_rate", "above 0"),
    ("defaults.learning_rate", float("nan"), "defaults.learning_rate", "above 0"),
    ("defaults.layers", 17, "defaults.layers", "from 1 to 16"),
    # more than a trial can hold
    ("defaults.batch_size", 99999999999999999999, "defaults.batch_size", "from 1 to 2147483647"),
    ("defaults.batch_size", 2147483648.0, "defaults.batch_size", "from 1 to 2147483647"),
    ("defaults.accumulation", 2**31, "defaults.accumulation", "from 1 to 2147483647"),
    ("defaults.epochs", 10**20, "defaults.epochs", "from 1 to 2147483647"),
    ("defaults.hidden_channels", 2**31, "defaults.hidden_channels", "from 1 to 2147483647"),
    ("defaults.threads_per_rank", 2**31, "defaults.threads_per_rank", "from 1 to 2147483647"),
    ("defaults.sampling_workers", 2**31, "defaults.sampling_workers", "from 0 to 2147483647"),
    ("defaults.evaluate_every_epochs", 2**31, "defaults.evaluate_every", "from 1 to 2147483647"),
    ("defaults.patience_evaluations", 2**31, "defaults.patience", "from 1 to 2147483647"),
    ("defaults.phase_window_steps", 2**31, "defaults.phase_window", "from 0 to 2147483647"),
    ("defaults.walltime_min", 2**31, "defaults.walltime_min", "from 1 to 2147483647"),
    ("defaults.ranks", 2**31, "defaults.ranks", "from 1 to 2147483647"),
    ("max_trials", 2**31, "max_trials", "from 1 to 2147483647"),
    ("experiments.batch.zip.batch_size.1", 10**20, "zip.batch_size[1]", "from 1 to 2147483647"),
    ("experiments.scaling.list.0.ranks", 10**20, "list[0].ranks", "from 1 to 2147483647"),
    ("experiments.batch.seeds", [10**23], "experiments.batch.seeds[0]", f"to {2**63 - 1}"),
    ("experiments.batch.seeds", [2**63], "experiments.batch.seeds[0]", f"to {2**63 - 1}"),
    ("defaults.fanout", [10**22, 1, 1, 1, 1], "defaults.fanout", "a hop, 10000 at most"),
    ("defaults.fanout", [5, 10_001, 1, 1, 1], "defaults.fanout", "a hop, 10000 at most"),
    ("defaults.memory_limit_gib", 0, "defaults.memory_limit_gib", "above 0"),
    ("defaults.walltime_min", 0, "defaults.walltime_min", "from 1 to"),
    ("budget_node_hours", "100", "budget_node_hours", "above 0, e.g. 100 without quotes"),
    ("skip_predicted_out_of_memory", "yes", "skip_predicted_out_of_memory", "true or false"),
    ("walltime_from_prediction", 0.5, "walltime_from_prediction", "at least 1"),
    ("walltime_from_prediction", "none", "walltime_from_prediction", "or null for none"),
    ("defaults.engine", "block", "defaults.engine", "blocks or bipartite or reference"),
    ("defaults.engine", "trimed", "defaults.engine", "write trimmed or bipartite or blocks"),
    ("defaults.sampler", "pyg-lib", "defaults.sampler", "write pyg_lib or labor or uniform"),
    ("defaults.validation", "sample", "defaults.validation", "write sampled or full"),
    ("defaults.learning_rate_scaling", "square", "learning_rate_scaling", "sqrt or linear or none"),
    ("defaults.optimizer", "sgd", "defaults.optimizer", "write adam"),
    ("defaults.engine", ["blocks"], "defaults.engine", "blocks or bipartite or reference"),
    ("defaults.aggregator", "median", "defaults.aggregator", "mean or sum or max"),
    ("defaults.precision", "fp64", "defaults.precision", "fp32"),
    ("experiments.batch.axis", "batch", "experiments.batch.axis", "e.g. batch_size, or a list"),
    ("experiments.batch.axis", "head", "experiments.batch.axis", "e.g. heads"),
    ("experiments.batch.axis", "walltime_min", "experiments.batch.axis", "a key of a trial"),
    ("experiments.batch.axis", ["engine", "rank"], "experiments.batch.axis", "e.g. ranks"),
    ("experiments.batch.axis", ["engine", "engine"], "experiments.batch.axis", "each once"),
    ("experiments.batch.axis", [], "experiments.batch.axis", "a key of a trial"),
    (
        "experiments.batch.product.engine.1",
        "refrence",
        "product.engine[1]",
        "reference or bipartite",
    ),
    ("defaults.placement", "gpu", "defaults.placement", "auto or device or host"),
    ("defaults.compile", "yes", "defaults.compile", "true or false"),
    # values that do not go together
    ("defaults.sampler", "pyg_lib", "defaults.sampler", "or set engine: bipartite or reference"),
    ("defaults.placement", "host", "defaults.placement", "auto: engine reference"),
    ("defaults.precision", "tf32", "defaults.precision", "fp32 or bf16"),
    # fanouts
    ("defaults.fanout", 10, "defaults.fanout", "a list of one whole number a layer"),
    ("defaults.fanout", "10,10", "defaults.fanout", "a list of one whole number a layer"),
    ("defaults.fanout", [], "defaults.fanout", "a list of one whole number a layer"),
    ("defaults.fanout", [5, -2, 1, 1, 1], "defaults.fanout", "-1: every one"),
    ("defaults.fanout", [5, 0, 5, 0, 0], "defaults.fanout", "zeros only at the end"),
    ("defaults.fanout", [5, 5], "defaults.fanout", "each of the 5 layers"),
    (f"{FIXED}.fanout", [5] * 6, f"{FIXED}.fanout", "set layers: 6"),
    # data sets
    ("dataset.source", "pubmeed", "dataset.source", "pubmed or synthetic"),
    ("dataset.split", "huge", "dataset.split", "public or large"),
    ("dataset.name", "../x", "dataset.name", "a plain name"),
    ("dataset", {"name": "p", "source": "ogb", "ogb_name": "mag"}, "dataset.ogb_name", "products"),
    ("dataset", {"name": "s", "source": "synthetic", "seed": 2**63}, "dataset.seed", "from 0 to 9"),
    ("dataset", {"name": "s", "source": "synthetic", "scale": 2}, "dataset.scale", "at most 1"),
    (
        "experiments.batch.dataset",
        {"name": "x"},
        "experiments.batch.dataset.source",
        "write arrays",
    ),
    ("dataset", {"name": "a", "source": "arrays", "path": "{x}"}, "dataset.path", "without { }"),
    (
        "dataset",
        {"name": "a", "source": "arrays", "path": "a.npz", "num_classes": 1},
        "dataset.num_classes",
        "from 2 to",
    ),
    (
        "dataset",
        {"name": "a", "source": "arrays", "path": "a.npz", "undirected": "yes"},
        "dataset.undirected",
        "true or false",
    ),
    (
        "dataset",
        {"name": "p", "source": "ogb", "ogb_name": "ogbn-arxiv", "sha256": "abc"},
        "dataset.sha256",
        "64 hexadecimal digits",
    ),
    # names
    ("study", "my study", "study", "e.g. my-study"),
    ("study", 2024, "study", "a plain name"),
    ("study", "trials", "study", "another name"),
    ("experiments.a b", {"axis": "ranks"}, "experiments.a b", "e.g. a-b"),
    ("results", "out/{study}", "results", "without { }"),
    ("results", "", "results", "a path"),
]
# ... and those where there is no value to show.
BAD_AS_A_WHOLE = [
    ("study", REMOVED, "study is missing", "study: my-study"),
    ("dataset", REMOVED, "dataset is missing", "dataset: {name: pubmed"),
    ("experiments", REMOVED, "experiments is missing", "at least one experiment"),
    ("experiments.batch.axis", REMOVED, "experiments.batch.axis is missing", "axis: batch_size"),
    ("dataset.split", REMOVED, "dataset.split is missing", "split: large"),
    ("experiments", {}, "experiments is {}", "at least one entry"),
    ("experiments.batch.product.engine", [], "product.engine is []", "at least one entry"),
    ("experiments.scaling.list", [], "experiments.scaling.list is []", "at least one entry"),
    ("experiments.batch.seeds", [], "experiments.batch.seeds is []", "at least one entry"),
    (
        "experiments.batch.zip.accumulation",
        [1, 2],
        "experiments.batch.zip holds 3 of batch_size, 2 of accumulation",
        "as many entries for each",
    ),
    (
        "experiments.batch.product.batch_size",
        [1, 2],
        "experiments.batch.zip.batch_size[0] is also given by experiments.batch.product.batch_size",
        "in one place",
    ),
    (
        "experiments.batch.product.dropout",
        [0.1],
        "dropout[0] is also given by experiments.batch.fixed.dropout",
        "in one place",
    ),
    (
        "experiments.batch.product.engine",
        ["blocks", "blocks"],
        "experiments.batch asks twice for the trial pubmed-blocks-b64x4",
        "once",
    ),
    ("experiments.scaling.seeds", [1, 1], "experiments.scaling asks twice", "once"),
    (
        "experiments.scaling.list",
        [{"engine": "trimmed", "sampler": "pyg_lib", "continue_after_walltime": True}],
        "experiments.scaling.list[0].continue_after_walltime is true",
        "or set sampler: labor or uniform",
    ),
]


def sentence_of(values, site=WORKSTATION):
    with pytest.raises(UserError) as raised:
        study_of(values, site)
    (sentence,) = str(raised.value).splitlines()
    assert sentence.endswith(".")
    return sentence


def as_shown(place, value, path):
    """The bad value as the sentence shows it; in a data set or a list it is one of the entries."""
    if isinstance(value, dict) and place.endswith("dataset"):
        value = value.get(path.rsplit(".", 1)[-1])
    elif path.endswith("[0]"):
        value = value[0]
    elif place == f"experiments.{path.rsplit('.', 1)[-1]}" and " " in place:
        value = path.rsplit(".", 1)[-1]  # a bad key
    return {"None": "null", "True": "true"}.get(repr(value), repr(value))


@pytest.mark.parametrize(("place", "value", "path", "advice"), BAD)
def test_a_bad_value_is_named_with_its_place_and_what_to_write(place, value, path, advice):
    sentence = sentence_of(changed(place, value))
    assert path in sentence.split(" is ")[0].split(" (given")[0]
    assert advice in sentence
    assert as_shown(place, value, path) in sentence


@pytest.mark.parametrize(("place", "value", "problem", "advice"), BAD_AS_A_WHOLE)
def test_a_bad_grid_is_named_with_its_place_and_what_to_write(place, value, problem, advice):
    sentence = sentence_of(changed(place, value))
    assert problem in sentence
    assert advice in sentence


@pytest.mark.parametrize(
    ("ranks", "site", "advice"),
    [
        (9, WORKSTATION, "6 or 7 or 8"),
        (5, CLUSTER, "4 or 6"),  # two nodes cannot take as many each
        (41, CLUSTER, "36 or 40"),
    ],
)
def test_ranks_that_the_nodes_cannot_give(ranks, site, advice):
    sentence = sentence_of(changed("experiments.scaling.list.1.ranks", ranks), site)
    assert sentence.startswith(f"experiments.scaling.list[1].ranks is {ranks}: write ")
    assert advice in sentence or advice.split(" or ")[0] in sentence


def test_a_walltime_beyond_the_sites():
    sentence = sentence_of(changed("defaults.walltime_min", 3000), CLUSTER)
    assert sentence.startswith("defaults.walltime_min is 3000: write at most 2880")


LONG = list(range(1, 1001))
PRODUCT = {"axis": "ranks", "product": {"batch_size": LONG, "epochs": LONG}, "seeds": LONG}
ZIPPED = {
    "axis": "ranks",
    "zip": {"batch_size": LONG, "accumulation": LONG},
    "list": [{"epochs": epochs} for epochs in LONG],
}
TOO_MANY = [
    (
        {"batch": PRODUCT},
        "experiments ask for 1000000000 of batch = 1000000000 trials, and max_trials is 100000: ",
    ),
    (
        {"batch": ZIPPED},
        "experiments ask for 1000000 of batch = 1000000 trials, and max_trials is 100000: ",
    ),
    (
        {name: {**ZIPPED, "list": ZIPPED["list"][:60]} for name in ("a", "b")},
        "experiments ask for 60000 of a + 60000 of b = 120000 trials, and max_trials is 100000: ",
    ),
]


@pytest.mark.parametrize(("experiments", "problem"), TOO_MANY)
def test_a_study_of_too_many_trials_is_refused_before_they_are_made(experiments, problem):
    sentence = sentence_of({**GOOD, "experiments": experiments})
    assert sentence.startswith(problem)
    assert sentence.endswith(": write shorter lists, or a larger max_trials.")


def test_as_many_trials_as_max_trials_are_made():
    assert len(study_of({**GOOD, "max_trials": 10}).requests) == 10
    assert "6 of batch + 4 of scaling = 10" in sentence_of({**GOOD, "max_trials": 9})


def test_the_largest_values_that_a_trial_can_hold_are_good():
    values = changed("defaults.batch_size", 2**31 - 1)
    values["experiments"] = {"a": {"axis": "ranks", "seeds": [2**63 - 1]}}
    values["defaults"]["fanout"] = [10_000, 1, -1, 0, 0]
    (request,) = study_of(values).requests.values()
    assert (request.trial.batch_size, request.trial.seed) == (2**31 - 1, 2**63 - 1)


def test_an_int_that_no_float_can_hold_is_named_and_shortened():
    sentence = sentence_of(changed("defaults.learning_rate", 10**400))
    assert sentence.startswith("defaults.learning_rate is 1000") and len(sentence) < 200
    assert sentence.endswith("...: write a number above 0, e.g. 0.001.")


def test_several_mistakes_are_all_told_at_once():
    values = changed("defaults.dropout", 2)
    values["study"] = "a b"
    with pytest.raises(UserError) as raised:
        study_of(values)
    assert len(str(raised.value).splitlines()) == 2


GOOD_SITE = yaml.safe_dump(WORKSTATION)
BAD_FILES = [
    ("study: a\nstudy: b\n", "line 2: study is given twice", "write it once"),
    (
        "experiments:\n  a: {axis: ranks}\n  a: {axis: fanout}\n",
        "line 3: a is given",
        "another name",
    ),
    ("study: [a\n", "is no YAML", "key: value"),
    ("just text\n", "holds no keys", "key: value"),
    (f"study: a\nepochs: {10**4000}{10**4000}\n", "is no YAML", "key: value"),
    ("study: 2024-13-01\n", "is no YAML (month must be in 1..12)", "key: value"),
    ("extends: missing.yaml\n", "extends is 'missing.yaml'", "beside it"),
    ("extends: study.yaml\n", "extends itself", "another file"),
]


@pytest.mark.parametrize(("text", "problem", "advice"), BAD_FILES)
def test_a_bad_file_is_named(tmp_path, text, problem, advice):
    (tmp_path / "study.yaml").write_text(text)
    (tmp_path / "site.yaml").write_text(GOOD_SITE)
    with pytest.raises(UserError) as raised:
        load_study([tmp_path / "study.yaml"], tmp_path / "site.yaml")
    assert "study.yaml" in str(raised.value)
    assert problem in str(raised.value)
    assert advice in str(raised.value)


BAD_SITES = [
    ("devices_per_node: 0\n", "devices_per_node is 0", "from 1 to"),
    ("device: gpu\n", "device is 'gpu'", "cpu or cuda"),
    ("gpus: 4\n", "gpus (given as 4)", "write one of machine"),
    ("whole_nodes: maybe\n", "whole_nodes is 'maybe'", "true or false"),
    ("launcher: ssh\n", "launcher is 'ssh'", "local or slurm"),
    ("limits: {walltime: 5}\n", "limits.walltime (given as 5)", "write walltime_max_min"),
    ("launcher: slurm\ncpus_per_node: null\n", "cpus_per_node is missing", "cpus_per_node: 64"),
    # what would reach a shell without quotes
    ("account: p200; reboot\n", "account is 'p200; reboot'", "as Slurm knows it"),
    ("account: 200\n", "account is 200", "as Slurm knows it"),
    ("qos: $(reboot)\n", "qos is '$(reboot)'", "as Slurm knows it"),
    ('qos: "default\\n"\n', "qos is 'default\\n'", "as Slurm knows it"),
    ("partition_gpu: '`reboot`'\n", "partition_gpu is '`reboot`'", "as Slurm knows it"),
    ("partition_cpu: -x\n", "partition_cpu is '-x'", "as Slurm knows it"),
    ("gres: gpu' x\n", 'gres is "gpu\' x"', "as Slurm knows it"),
    ("sbatch_options: [-N2]\n", "sbatch_options[0] is '-N2'", "no key of the site"),
    ("sbatch_options: [--gpus=4]\n", "sbatch_options[0] is '--gpus=4'", "no key of the site"),
    ("sbatch_options: [hint]\n", "sbatch_options[0] is 'hint'", "--hint=nomultithread"),
    ("sbatch_options: --hint=x\n", "sbatch_options is '--hint=x'", "a list, e.g. [--hint=x]"),
    ('srun_options: ["--x\\ny"]\n', "srun_options[0] is '--x\\ny'", "one option in one text"),
    ("container_options: [-]\n", "container_options[0] is '-'", "one option in one text"),
    ("binds: [/a, '{b}']\n", "binds[1] is '{b}'", "without { }"),
    ("image: -x.sif\n", "image is '-x.sif'", "- not first"),
    ('environment: {A: "a\\0b"}\n', "environment.A is 'a\\x00b'", "a line of text"),
    ("environment: {A B: x}\n", "environment.A B is 'A B'", "a variable's name"),
    ("modules: [5]\n", "modules[0] is 5", "a module's name"),
    ("modules: [good/1.0, $(reboot)]\n", "modules[1] is '$(reboot)'", "a module's name"),
]


@pytest.mark.parametrize(("text", "problem", "advice"), BAD_SITES)
def test_a_bad_site_is_named_with_its_file(tmp_path, text, problem, advice):
    site = {**WORKSTATION, **yaml.safe_load(text)}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(GOOD))
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    with pytest.raises(UserError) as raised:
        load_study([tmp_path / "study.yaml"], tmp_path / "site.yaml")
    assert f"site.yaml: {problem}" in str(raised.value)
    assert advice in str(raised.value)


def test_a_missing_site_is_named(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(GOOD))
    with pytest.raises(UserError, match=r"which is no file: write the path of a site\.yaml"):
        load_study([tmp_path / "study.yaml"], tmp_path / "site.yaml")


def test_an_axis_that_no_trial_has_is_a_mistake():
    heads = {"axis": "heads", "product": {"hidden_channels": [16, 64]}}
    said = sentence_of({**GOOD, "experiments": {"batch": heads}})
    assert said.startswith(
        "experiments.batch.axis has heads, which none of its trials has: set model"
    )
