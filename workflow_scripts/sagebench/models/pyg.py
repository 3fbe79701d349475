"""The peers: the same network of PyG's own layers, called as its users call them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch_geometric.utils import trim_to_layer

from sagebench import registry

NARROW = frozenset(
    {"addbmm", "addmm", "baddbmm", "bmm", "linear", "matmul", "__matmul__", "mm", "mv", "prelu"}
)
WIDE = frozenset(
    {"cross_entropy", "cumsum", "exp", "group_norm", "layer_norm", "log", "log_softmax", "nll_loss"}
    | {"norm", "pow", "__pow__", "prod", "reciprocal", "rsqrt", "softmax", "sum"}
)
"""what computes in bfloat16 and what in float32, of the functions that a graph network calls
(https://docs.pytorch.org/docs/stable/amp.html, "CUDA Op-Specific Behavior")"""


class PygNetwork(nn.Module):
    """PyG's own layers over the sampled graph, with the parameters of `base.Network`.

    layout: `whole` computes every sampled node in every layer, as the slides do; `trimmed` drops,
    layer by layer, what the seed nodes no longer need (PyG's `trim_to_layer`); `bipartite` calls
    the layers on pairs of sources and destinations. dtype: bfloat16 computes under torch.autocast.
    """

    def __init__(
        self,
        model: str,
        widths: list[int],
        layout: str,
        *,
        dropout: float = 0.0,
        options: Mapping[str, object] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """widths: of the input, of each hidden layer, and the number of classes."""
        super().__init__()
        self.model = registry.load("model", model)
        layers, hidden = len(widths) - 1, widths[1:-1]
        self.convs = nn.ModuleList(
            self.model.peer(widths[k], widths[k + 1], last=k == layers - 1, **options or {})
            for k in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in hidden)
        self.dropout = dropout
        self.layout = layout
        self.dtype = dtype

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        nodes_per_hop: tuple[int, ...],
        edges_per_hop: tuple[int, ...],
        degrees: Tensor | None = None,
    ) -> Tensor:
        """Logits of the seed nodes, [B, classes].

        x: float32 [n, in_channels] of the sampled nodes, seeds first, then hop by hop.
        edge_index: int64 [2, e] local (source, destination), hop by hop. degrees: float32 [n], the
        nodes' in-degrees in the graph, for models that need them.
        """
        edges = (edge_index,)
        if degrees is not None:
            edges = self.model.peer_edges(edge_index, degrees)
        with autocast(x.device.type, self.dtype):
            for k, conv in enumerate(self.convs):
                if self.layout == "trimmed":
                    x, edge_index, _ = trim_to_layer(
                        k, list(nodes_per_hop), list(edges_per_hop), x, edge_index
                    )
                    edges = (edge_index,)
                read: Tensor | tuple[Tensor, Tensor] = x
                if self.layout == "bipartite":
                    rows = sum(nodes_per_hop[: len(self.convs) - k])
                    edges = (edge_index[:, : sum(edges_per_hop[: len(self.convs) - k])],)
                    read = x, x[:rows]
                x = conv(read, *edges)
                if k < len(self.norms):
                    x = F.relu(self.norms[k](x))
                    x = F.dropout(x, self.dropout, self.training)
        return x[: nodes_per_hop[0]]


def autocast(device_type: str, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """The context in which a float32 model computes its products in `dtype`: torch.autocast, and on
    device `meta`, which it refuses, the casts that it makes on CUDA."""
    if device_type != "meta":
        return torch.autocast(device_type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    return _CastsOfCuda(dtype) if dtype == torch.bfloat16 else nullcontext()


class _CastsOfCuda(TorchFunctionMode):
    def __init__(self, narrow: torch.dtype) -> None:
        super().__init__()
        self.narrow = narrow

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        name = function.__name__
        if name in NARROW or name in WIDE:
            dtype = self.narrow if name in NARROW else torch.float32

            def cast(value: Any) -> Any:
                lower = isinstance(value, Tensor) and value.is_floating_point()
                return value.to(dtype) if lower and value.dtype != torch.float64 else value

            args, kwargs = tree_map(cast, (args, kwargs or {}))
        return function(*args, **(kwargs or {}))
