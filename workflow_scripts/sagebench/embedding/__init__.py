"""node2vec: random walks, skip-gram with negative sampling, vectors for new nodes."""
