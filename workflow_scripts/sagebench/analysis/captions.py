"""Figures of the report by the axis that they study. Standard library only: Snakemake's parse reads
it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """A figure's title, and how to read it in a sentence."""

    title: str
    reading: str


CAPTIONS = {
    "batch_size": {
        "batch_time": Caption(
            "Batch size and time",
            "Each point is the median epoch of the repeats, its bar their range; lower is faster, "
            "and what ended without a value stands in the strip on top, at its batch size.",
        ),
        "batch_memory": Caption(
            "Batch size and memory",
            "The highest memory of the fullest rank; the axis names the counter, and the dashed "
            "line, where there is one, is the limit that trials ran into.",
        ),
        "accumulation_time": Caption(
            "Gradient accumulation and time",
            "A flat line says that adding up more micro-batches before a step costs no time.",
        ),
    },
    "fanout": {
        "accuracy_time": Caption(
            "Fanout: accuracy and time",
            "Upper left is best: the dashed front joins the fanouts that no other one of its "
            "series beats in both; numbers refer to the key below the axes.",
        ),
        "memory_fanout": Caption(
            "Fanout: memory",
            "Total fanout is the product of the non-zero fanouts (as the slides define it, it "
            "would be 0 with a zero in it); “all” stands for every neighbor.",
        ),
    },
    "ranks": {
        "scaling_time": Caption(
            "Scaling: time",
            "Time per epoch of the same training set on more ranks; hollow points are "
            "oversubscribed (more ranks × threads than cores).",
        ),
        "speedup": Caption(
            "Scaling: speed-up",
            "How many times faster than the fewest ranks; the dashed line is ideal, and "
            "oversubscribed trials are left out.",
        ),
        "efficiency": Caption(
            "Scaling: efficiency",
            "Speed-up as a share of the ideal one: 100 % would use every added device fully.",
        ),
        "loss_curves": Caption(
            "Training loss",
            "The loss of every epoch, a line for each number of ranks; more ranks take fewer, "
            "larger steps in an epoch.",
        ),
    },
}

PREDICTED_MEASURED = Caption(
    "Predicted against measured",
    "On the line, both are equal; the band is 20 % to either side, and bars are the predictions' "
    "intervals, which are to hold nine of ten.",
)

AXIS_NAMES = {
    "batch_size": "Batch size and accumulation",
    "fanout": "Fanout",
    "ranks": "Scaling",
}
