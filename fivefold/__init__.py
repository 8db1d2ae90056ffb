"""fivefold: jina-embeddings-v3, self-hosted."""
