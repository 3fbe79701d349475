"""Names of what the row `step` compares, and what stands behind them."""

from __future__ import annotations

BEST_PYG = ("trimmed_csr", "trimmed_edge_index")
"""nodes and edges as `trim_to_layer` leaves them, on PyG's fused kernels; the faster is best_pyg"""

BIPARTITE = "bipartite_csr"
"""beyond PyG's trimming: written out by hand, a layer computes only the rows that are read"""

PEERS = (*BEST_PYG, BIPARTITE)
"""sagebench.bench.peers makes these"""

ENGINES = ("blocks", BIPARTITE, *BEST_PYG, "trimmed", "reference")
"""in the order in which they take turns"""
