"""What graphs of texts share: features from the texts, and a random split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagebench.errors import UserError

RAW = Path(__file__).resolve().parents[3] / "data" / ".downloads"
"""where `make data` leaves the files that it made graphs from, a folder a graph"""
NUM_FEATURES = 100
SEED = 0


def text_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """x float32 [N, 100]: TF-IDF (tf as 1 + log tf) of the texts, then a truncated SVD.

    Fewer columns where there are fewer texts or distinct words. Another machine's differ in their
    last bits. UserError: no words, or no scikit-learn.
    """
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise UserError(
            "scikit-learn is not installed here, which makes features of texts: install "
            "envs/requirements.txt, or name an .npz of `make data` with source: arrays"
        ) from None
    try:
        words = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
        components = min(NUM_FEATURES, *words.shape)
        svd = TruncatedSVD(components, random_state=SEED)
        return svd.fit_transform(words).astype(np.float32)
    except ValueError as error:
        raise UserError(f"its texts have too few words ({error}); give another file") from None


def once_each(edges: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """edge_index [2, E] of undirected edges: each once, u < v, ascending, without self loops."""
    pairs = np.sort(np.array(edges, np.int64).reshape(-1, 2), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0).T


def random_split(part: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Half of the parts to train on, a quarter each to validate and to test, whole: quarters of
    numpy.random.default_rng(0).permutation(parts). part: int64 [N], of each node, from 0."""
    parts = int(part.max()) + 1
    quarter = (np.random.default_rng(SEED).permutation(parts) * 4 // parts)[part]
    return {
        "train": np.flatnonzero(quarter < 2),
        "valid": np.flatnonzero(quarter == 2),
        "test": np.flatnonzero(quarter == 3),
    }
