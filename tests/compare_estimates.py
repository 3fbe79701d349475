"""Figures of the recorded steps beside those of the model written by hand, to be read by eye.

    PYTHONPATH=workflow_scripts:tests python tests/compare_estimates.py [results/probes/STORE.json]

With a probe: every fanout and batch size in it. Without: three fanouts of the slides, whose sizes
are written down in tests/slides.py. It goes when the model written by hand goes.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace

from probed import PRODUCTS
from sagebench.estimate.memory import Replayed, replayed
from sagebench.estimate.sizes import sizes_at
from sagebench.estimate.step import StepRecorder
from sagebench.estimate.trace import RecordedStep
from sagebench.grid.trial import Trial
from sagebench.predict import memory
from sagebench.predict.cards import card_rates
from sagebench.predict.phases import Case, micro_step
from sagebench.predict.probe import load_probe
from sagebench.predict.resident import sample_bytes
from sagebench.predict.samples import GraphFacts, Sample
from sagebench.predict.steps import hops
from sagebench.predict.work import Counts
from slides import SIZES, slides_sample, slides_trial

MIB = 1 << 20
ENGINES = ("blocks", "trimmed", "reference")
BYTES = ("stream", "norm", "gather", "spread", "scatter", "scatter_random", "segment")


@dataclass(frozen=True)
class Compared:
    """Pairs (recorded, by hand). flops, moved: of a step of average size."""

    live: tuple[float, float]
    held: tuple[float, float]
    needed: tuple[float, float]
    batch: tuple[float, float]
    flops: tuple[float, float]
    moved: tuple[float, float]
    seconds: float

    def off(self, name: str) -> float:
        """How much more the recorded figure is, as a share."""
        new, old = getattr(self, name)
        return new / old - 1 if old else 0.0


def compare(trial: Trial, sample: Sample, graph: GraphFacts, placement: str) -> Compared:
    trial = replace(trial, dataset=None)
    started = time.perf_counter()
    new: Replayed = replayed(trial, sample, graph, placement)
    seconds = time.perf_counter() - started
    old = memory._replayed(trial, sample, graph, placement)
    recorded = recorded_at(trial, sample, graph, placement)
    sizes = hops(sample, graph, 0.0)
    counts = Counts(*sizes)
    step = micro_step(Case(trial, counts, graph, card_rates("A100-40GB"), placement))
    uses = [*step.forward, *step.backward]
    return Compared(
        live=(new.live, old.live),
        held=(new.held, old.held),
        needed=(new.needed, old.needed),
        batch=(sum(recorded.batch_bytes), sample_bytes(trial, graph, placement, *sizes)),
        flops=(recorded.flops, sum(use.amount for use in uses if "products" in use.kind)),
        moved=(
            recorded.bytes_moved,
            sum(use.amount for use in uses if use.kind in BYTES)
            + sum(use.touched for use in uses if "products" in use.kind),
        ),
        seconds=seconds,
    )


def recorded_at(
    trial: Trial, sample: Sample, graph: GraphFacts, placement: str, z: float = 0.0
) -> RecordedStep:
    return StepRecorder(trial, graph, placement).record(*sizes_at(sample, graph, z))


CHOICES = {
    "": {},
    "host": {"placement": "host"},
    "sum": {"aggregator": "sum"},
    "max": {"aggregator": "max"},
    "bf16": {"precision": "bf16"},
    "no dropout": {"dropout": 0.0},
    "width 64": {"hidden_channels": 64},
    "max, bf16": {"aggregator": "max", "precision": "bf16"},
}
"""how a trial differs from the slides'; all of them of the default fanout and batch size alone"""


def main() -> None:
    if len(sys.argv) > 1:
        probe = load_probe(sys.argv[1])
        samples, graph = [*probe.samples.values()], probe.graph
    else:
        samples, graph = [*map(slides_sample, SIZES)], PRODUCTS
    samples.sort(key=lambda sample: (sample.batch_size, sample.fanout))
    names = ("live", "held", "needed", "batch", "flops", "moved")
    print("MiB (FLOPs in G, bytes moved in GB): recorded / by hand, recorded more by %")
    for engine in ENGINES:
        for sample in samples:
            default = sample.fanout == (15, 10, 10, 10, 10) and sample.batch_size == 128
            for choice, values in (CHOICES if default else {"": {}}).items():
                if choice == "host" and engine != "blocks":
                    continue
                trial = slides_trial(engine, sample, **values)
                kept = values.get("placement", "device") if engine == "blocks" else "host"
                found = compare(trial, sample, graph, kept)
                what = f"{engine} {','.join(map(str, sample.fanout))}/{sample.batch_size} {choice}"
                cells = []
                for name in names:
                    new, old = getattr(found, name)
                    unit = 1e9 if name in ("flops", "moved") else MIB
                    cells.append(
                        f"{name} {new / unit:,.0f} / {old / unit:,.0f} {found.off(name):+.1%}"
                    )
                print(f"{what:45} {'; '.join(cells)}; {found.seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
