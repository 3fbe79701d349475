"""A call of every kernel, for tests of what kernels take."""

import torch
from sagebench.kernels.gpu import norm, segment, segment_max
from sagebench.sampling.device.kernels import KernelSampler


def call_all() -> None:
    """Each kernel as the slides' trial calls it: 100 features, 256 hidden channels, fanout 15."""
    rowptr, col = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 2], dtype=torch.int32)
    colptr = torch.tensor([0, 1, 2, 3], dtype=torch.int32)
    for dtype in (torch.bfloat16, torch.float32):
        x, gamma = torch.ones(3, 256, dtype=dtype), torch.ones(256)
        features = torch.ones(3, 100, dtype=dtype)
        out, mean, rstd = norm.forward(x, gamma, gamma, 0.5, 1, colptr[:3].long(), 1e-5)
        norm.backward(x, gamma, gamma, 0.5, 1, colptr[:3].long(), mean, rstd, out)
        segment.aggregate(features, rowptr, col, True, dtype, True, colptr[:2].long(), None)
        known_rows = torch.tensor([0, 1, 2])
        segment.aggregate(features, rowptr, col, True, dtype, True, known_rows, features)
        segment.aggregate(x, rowptr, col, False, dtype, False, None, None)
        both = segment.aggregate(x, rowptr, col, True, dtype, True, None, None)
        segment.gradient(*both.split(256, 1), colptr, colptr[:3] % 2, rowptr, 3)
        highest, tied = segment_max.maximum(x, rowptr, col, True)
        segment_max.gradient(x, highest, tied, highest, highest, colptr, col, 3)
    ring = torch.arange(4), torch.tensor([1, 2, 0], dtype=torch.int32)
    KernelSampler(*ring).sample([0, 1], [15, 10, 32], 1, relabel_last=False)
