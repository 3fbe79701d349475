"""What the slides publish, and what is unknown about it.

"GraphSAGE: inductive representation learning on large graphs", slides of December 9, 2025.
"""

from __future__ import annotations

SOURCE = "the slides “GraphSAGE: inductive representation learning on large graphs” (2025-12-09)"
SETTING = (
    "ogbn-products on MeluXina, NVIDIA A100 40 GB, PyTorch 2.1.2 with PyTorch Geometric "
    "(compares best with the engine reference)"
)
DATASET, MACHINE, CARD, ENGINE, TORCH = "ogbn-products", "meluxina", "A100", "reference", "2.1.2"

LARGEST_BATCH, LARGEST_BATCH_MEMORY_GB = 160, 32
OUT_OF_MEMORY_BATCHES = (192, 256, 512)

TOP_FANOUTS = {
    "15,15,15,5,5": (0.8121, 14.56),
    "15,10,10,10,0": (0.8114, 7.22),
    "15,10,10,10,10": (0.8096, 19.53),
    "10,10,10,10,10": (0.8088, 16.46),
    "20,15,10,5,3": (0.8055, 11.60),
}
"""fanout: test accuracy, and time in hours"""

SCALING = {2: (1.93, 0.965), 4: (3.73, 0.93), 8: (7.1, 0.89)}
"""GPUs: speed-up and efficiency"""

UNKNOWN = {
    "all": (
        "Whether a number is one run or the middle of several, and how far repeats spread.",
        "Learning rate, optimizer and epochs: “Hyperparameter tuning details coming soon”.",
        "How many training nodes there were: the slides say 250k, the data set's split has "
        "196,615.",
    ),
    "batch_size": (
        "Which counter the memory is (allocated, reserved, or used on the card), whether GB is "
        "10⁹ or 2³⁰ bytes, and what the 7.5 GB of system overhead are.",
    ),
    "fanout": (
        "Whether Time (h) is the whole training, its epochs alone or with evaluation, and how many "
        "epochs it took: no epoch's time is given.",
        "Whether test accuracy was evaluated with every neighbor or with sampled ones, and on "
        "which checkpoint.",
        "Batch size, accumulation and number of GPUs of these runs.",
    ),
    "ranks": (
        "The times themselves: the slides give ratios only.",
        "Accumulation, and whether evaluation is part of the time.",
    ),
}
