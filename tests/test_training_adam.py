"""Our Adam is torch's."""

import subprocess
import sys

import torch
from sagebench.training.adam import Adam


def parameters():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((5, 3), (7,), (2,))]


def test_it_equals_torchs_to_the_bit():
    ours, theirs = parameters(), parameters()
    one, other = Adam(ours, lr=0.01), torch.optim.Adam(theirs, lr=0.01)
    for step in range(10):
        for mine, its in zip(ours, theirs, strict=True):
            # The last has no gradient at times, and its moments and count stand still.
            missing = mine.shape == (2,) and step % 3 == 1
            mine.grad = None if missing else torch.randn_like(mine)
            its.grad = None if missing else mine.grad.clone()
        for optimizer in (one, other):
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(mine, its) for mine, its in zip(ours, theirs, strict=True))
    assert all(mine.grad is None for mine in ours)


def test_the_compiler_is_not_loaded():
    """It takes a second of every trial's start."""
    code = (
        "import sys, torch; from sagebench.training.adam import Adam;"
        "p = torch.nn.Parameter(torch.ones(2)); o = Adam([p], lr=1); p.sum().backward(); o.step();"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    folder = next(path for path in sys.path if path.endswith("workflow_scripts"))
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": folder}, check=False)
    assert done.returncode == 0
