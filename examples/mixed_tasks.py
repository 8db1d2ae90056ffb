"""One call, a task for each text: the adapters share every forward pass."""

from fivefold import Embedder

embedder = Embedder.load()
vectors = embedder.encode(
    ["How tall is Mount Everest?", "Mount Everest is 8,849 metres tall.", "mountains", "mountains"],
    task=["retrieval.query", "retrieval.passage", "classification", "separation"],
    truncate_dim=128,
)
print("shape:", vectors.shape)
print(f"question and answer: {vectors[0] @ vectors[1]:.3f}")
print(f"one word through two adapters: {vectors[2] @ vectors[3]:.3f}")
