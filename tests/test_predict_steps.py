"""What a step takes and a rank keeps is held to what torch really takes: its record of allocations,
the tensors that autograd saves, the bytes of its objects. Not to the model's own formulas."""

import time
import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from sagebench.engines.make import make_engine
from sagebench.engines.placement import choose_placement
from sagebench.engines.tensors import torch_view
from sagebench.model import fused, linear, reference, segment
from sagebench.predict import evaluation as predicted_evaluation
from sagebench.predict import resident, step_blocks, step_evaluation
from sagebench.predict.counting import make_sample
from sagebench.predict.probe import graph_facts
from sagebench.predict.step_pyg import SAVED
from sagebench.predict.steps import step_tape
from sagebench.sampling.order import SeedOrder
from sagebench.sampling.tensor import DRAWS_A_STEP, TensorSampler
from sagebench.training import evaluation
from sagebench.training.distributed import Communicator, RankEnvironment
from sagebench.training.evaluation import Evaluator
from sagebench.training.step import LossModule
from torch import nn
from torch.profiler import ProfilerActivity, profile
from trials import step_trial, tiny_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("store"), nodes=20_000, train=2_000)


class FusedDropout(torch.autograd.Function):
    """Dropout of one half as CUDA's kernel does it: no memory but the result's and the mask's."""

    @staticmethod
    def forward(ctx, x):
        mask = torch.empty(x.shape, dtype=torch.bool).bernoulli_(0.5)
        ctx.save_for_backward(mask)
        return torch.where(mask, x, 0).mul_(2)

    @staticmethod
    def backward(ctx, upstream):
        return torch.where(ctx.saved_tensors[0], upstream, 0).mul_(2)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The CPU takes the paths that a GPU takes: torch's operations for the compiled kernels, the
    fused dropout, and under autocast LayerNorm in float32."""
    monkeypatch.setattr(fused, "_has_kernel", lambda *_: False)
    monkeypatch.setattr(segment, "cpu_kernels", None)
    monkeypatch.setattr(linear, "_onednn", None)
    monkeypatch.setattr(reference.F, "dropout", lambda x, p, _: FusedDropout.apply(x) if p else x)
    monkeypatch.setattr(
        nn.LayerNorm,
        "forward",
        lambda self, x: torch.layer_norm(
            x.float(), self.normalized_shape, self.weight, self.bias, self.eps
        ),
    )


def most_taken(run):
    """The most bytes that torch's tensors take at a time while `run()` runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile(profile_memory=True, activities=[ProfilerActivity.CPU]) as record:
            run()
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in record.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    return int(np.cumsum([size for _, size in events]).max())


class Step:
    """One real step of a trial: its batch, and the most bytes torch had for it at a time."""

    def __init__(self, trial, store):
        self.trial = trial
        self.engine = make_engine(trial, store, CPU)
        self.engine.model.train()
        module = LossModule(self.engine.model)
        micro_batch = next(
            SeedOrder(store.train, trial.batch_size, 1, 1, trial.seed).micro_batches(1, 0)
        )
        self.batch = self.engine.load(self.engine.sample(micro_batch))
        module(self.batch.inputs, self.batch.labels)[0].backward()  # whatever is made once
        self.engine.model.zero_grad(set_to_none=True)
        self.saved = {}

        def run():
            with torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor):
                loss, _ = module(self.batch.inputs, self.batch.labels)
            loss.backward()

        self.peak = most_taken(run)

    def _note(self, tensor):
        storage = tensor.untyped_storage()
        self.saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def sample(self):
        """What a probe would say of this very batch."""
        batch = self.batch
        counts = (*batch.nodes_per_hop, *batch.edges_per_hop)
        return make_sample(self.trial.fanout, self.trial.batch_size, [counts], None, whole=1)

    def tape(self, store, **values):
        trial = replace(self.trial, sampling_workers=1, **values)  # no sample in this memory
        placement = "host" if trial.engine != "blocks" else "mapped"
        return step_tape(trial, self.sample(), graph_facts(store), placement)


ENGINES = ("blocks", "trimmed", "reference")
AGGREGATORS = ("mean", "sum", "max")


@pytest.mark.parametrize("dropout", [0.5, 0.0])
@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_takes_what_torch_records(store, engine, aggregator, dropout):
    step = Step(step_trial(engine=engine, aggregator=aggregator, dropout=dropout), store)
    assert step.tape(store).peak()[0] == pytest.approx(step.peak, rel=0.02)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_in_bfloat16(store, engine):
    """oneDNN's own buffers, a constant of some 100 KB, are not on the tape."""
    step = Step(step_trial(engine=engine, precision="bf16", hidden_channels=256), store)
    assert step.tape(store).peak()[0] == pytest.approx(step.peak, rel=0.06)


def test_sizes_that_predictions_repeat_are_those_of_the_code():
    """They are written twice because predictions must not import torch."""
    assert step_evaluation.ROWS_PER_CHUNK == evaluation.ROWS_PER_CHUNK
    assert predicted_evaluation.SAMPLED_BATCH == evaluation.SAMPLED_BATCH_SIZE
    assert step_blocks.ROWS_A_CALL == linear.ROWS_A_CALL
    assert step_blocks.EDGES_A_STEP == segment.EDGES_A_STEP
    assert resident.DRAWS_A_STEP == DRAWS_A_STEP


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("hidden", [8, 64])  # narrower than the features, and wider
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_an_evaluation_takes_what_torch_records(store, monkeypatch, layers, hidden, aggregator):
    monkeypatch.setattr(evaluation, "ROWS_PER_CHUNK", 4096)
    monkeypatch.setattr(step_evaluation, "ROWS_PER_CHUNK", 4096)
    trial = step_trial(
        layers=layers, fanout=[2] * layers, hidden_channels=hidden, aggregator=aggregator
    )
    evaluator = Evaluator(
        trial, store, Communicator(RankEnvironment(), CPU), torch_view(store.labels)
    )
    weights = evaluator.model.state_dict()
    nodes = np.random.default_rng(0).permutation(store.num_nodes)[:10_000]
    peak = most_taken(lambda: evaluator.accuracy(weights, nodes, "full"))
    graph = replace(graph_facts(store), test_nodes=len(nodes))
    tape = step_evaluation.evaluation_tape(trial, graph)
    # A chunk's edges are taken as the average; here some have half as many again.
    assert tape.peak()[0] == pytest.approx(peak, rel=0.06)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_as_on_a_gpu(store, as_on_a_gpu, engine, aggregator, precision):
    step = Step(
        step_trial(engine=engine, aggregator=aggregator, precision=precision, hidden_channels=256),
        store,
    )
    tolerance = 0.02 if precision == "fp32" else 0.08
    assert step.tape(store, device="cuda").peak()[0] == pytest.approx(step.peak, rel=tolerance)


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_what_autograd_saves(store, engine, on_gpu, request):
    """Of the tape's parts, what is live between the passes and called saved; the weights, which
    autograd saves too, and the sample are there anyway."""
    if on_gpu:
        request.getfixturevalue("as_on_a_gpu")
    step = Step(step_trial(engine=engine, dropout=0.5), store)
    kept = [*step.engine.model.parameters(), *tensors_of(step.batch.inputs), step.batch.labels]
    for tensor in kept:
        step.saved.pop(tensor.untyped_storage().data_ptr(), None)
    tape = step.tape(store, device="cuda" if on_gpu else "cpu")
    assert between_the_passes(tape) == pytest.approx(sum(step.saved.values()), rel=0.03)


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value for t in tensors_of(part)] if isinstance(value, tuple) else []


def between_the_passes(tape):
    """Bytes called saved when the first gradient is taken."""
    live = {}
    for handle, size in tape.events:
        name, taken = tape._named[handle]
        if size and name.startswith("gradients"):
            break
        if size:
            live[handle] = taken * (name == SAVED)
        else:
            live.pop(handle)
    return sum(live.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_rank_keeps(store, engine):
    """Weights of the model and of the evaluator, and Adam's two values for each."""
    from sagebench.training.adam import Adam
    from sagebench.training.distributed import Communicator, RankEnvironment
    from sagebench.training.evaluation import Evaluator

    trial = step_trial(engine=engine, sampling_workers=2)
    made = make_engine(trial, store, CPU)
    adam = Adam(made.model.parameters(), lr=0.1)
    evaluator = Evaluator(
        trial,
        store,
        Communicator(RankEnvironment(), CPU),
        torch_view(store.labels),
        made.loader,
    )
    held = resident.resident(
        trial, graph_facts(store), resident.placement_of(trial, graph_facts(store), None), 10**9
    )
    weights = [*made.model.parameters(), *evaluator.model.parameters()]
    assert held["parameters"] == nbytes(weights)
    assert held["optimizer"] == nbytes([*adam._means, *adam._squares])
    assert held["process"] == 10**9
    if engine == "blocks":
        samplers = [made.loader._samplers.get() for _ in range(3)]
        scratch = sum(sampler._state.nbytes + sampler._local.nbytes for sampler in samplers)
        assert held["samplers"] == pytest.approx(scratch, rel=0.01)


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


def test_gradients_are_as_large_as_the_weights(store):
    step = Step(step_trial(), store)
    gradients = nbytes([parameter.grad for parameter in step.engine.model.parameters()])
    tape = step.tape(store)
    assert sum(size for name, size in tape._named if name == "gradients of weights") == (
        pytest.approx(gradients, rel=0.03)
    )


def test_what_a_gpu_keeps_of_graph_features_and_samplers(store):
    trial = step_trial(placement="device", sampling_workers=1, device="cuda")
    held = resident.resident(trial, graph_facts(store), "device", None)
    resident_arrays = [torch_view(a) for a in (store.colptr, store.row, store.features)]
    assert held["graph and features"] == nbytes(resident_arrays)
    sampler = TensorSampler(*resident_arrays[:2])
    scratch = nbytes([sampler.degree, sampler._known, sampler._found, sampler._local])
    assert held["samplers"] == pytest.approx(2 * scratch, rel=0.01)
    assert "process" not in held


def test_a_cpu_that_is_the_device_copies_neither_graph_nor_features(store):
    trial = step_trial(placement="device")
    held = resident.resident(trial, graph_facts(store), "device", None)
    assert "graph and features" not in held
    kept = make_engine(trial, store, CPU).loader
    for mine, stored in ((kept.row, store.row), (kept.features, store.features)):
        assert mine.data_ptr() == stored.ctypes.data


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_samples_ahead_of_a_step(store, workers):
    """As many as wait when the first step is long; each as large as its tensors."""
    trial = step_trial(sampling_workers=workers, batch_size=16)
    engine = make_engine(trial, store, CPU)
    sampled = []
    take = engine.loader.sample
    engine.loader.sample = lambda seeds, key: sampled.append(take(seeds, key)) or sampled[-1]
    order = SeedOrder(store.train, trial.batch_size, 1, 1, 0)
    stream = engine.stream(islice(order.micro_batches(1, 0), 20))
    next(stream)
    until = time.monotonic() + 20
    while len(sampled) < 1 + resident.batches_ahead(trial) and time.monotonic() < until:
        time.sleep(0.01)
    del stream
    assert len(sampled) >= 1 + resident.batches_ahead(trial)
    assert len(sampled) <= 1 + resident.batches_ahead(trial) + 1
    blocks = sampled[0]
    nodes = (*blocks.nodes_per_hop[:-1], 123)  # whatever the last hop found has no numbers
    said = resident.sample_bytes(trial, graph_facts(store), "mapped", nodes, blocks.edges_per_hop)
    assert said == pytest.approx(nbytes(blocks[:4]), rel=0.001)


@pytest.mark.parametrize("engine", ["blocks", "reference"])
def test_a_sample_in_the_memory_of_the_step(store, engine):
    trial = step_trial(engine=engine, placement="host" if engine == "blocks" else "auto")
    made = make_engine(trial, store, CPU)
    micro_batch = next(SeedOrder(store.train, 16, 1, 1, 0).micro_batches(1, 0))
    batch = made.load(made.sample(micro_batch))
    said = resident.sample_bytes(
        trial, graph_facts(store), "host", batch.nodes_per_hop, batch.edges_per_hop
    )
    tensors = [t for t in tensors_of(batch.inputs) if t.numel()]
    beside = 2 * 8 * sum(batch.nodes_per_hop) if engine == "reference" else 0  # labels and ids
    assert said == pytest.approx(nbytes(tensors) + beside, rel=0.01)


def test_what_the_tensor_sampler_takes_meanwhile(store):
    sampler = TensorSampler(torch_view(store.colptr), torch_view(store.row))
    trial = step_trial(fanout=[8, 8, 8], sampling_workers=1, placement="device", device="cuda")
    seeds = store.train[:400]
    blocks = sampler.sample(seeds, trial.fanout, 1, relabel_last=False)
    with profile(profile_memory=True, activities=[ProfilerActivity.CPU]) as record:
        sampler.sample(seeds, trial.fanout, 1, relabel_last=False)
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in record.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    peak = np.cumsum([size for _, size in events]).max()
    said = resident.sampling_bytes(
        trial, graph_facts(store), "device", blocks.nodes_per_hop, blocks.edges_per_hop
    )
    assert said == pytest.approx(peak - nbytes(blocks[:4]), rel=0.15)


@pytest.mark.parametrize("free_gib", [None, 1, 6, 100])
@pytest.mark.parametrize("wanted", ["auto", "device", "host"])
def test_the_placement_is_that_of_the_training(store, wanted, free_gib):
    graph = replace(graph_facts(store), feature_bytes=3 << 30)
    for device in ("cpu", "cuda"):
        free = None if free_gib is None else free_gib << 30
        if (device == "cpu") != (free is None):
            continue
        trial = step_trial(placement=wanted, device=device)
        chosen = choose_placement(wanted, graph.index_bytes, graph.feature_bytes, free).chosen
        assert resident.placement_of(trial, graph, free) == chosen
