"""Vectors for the chunks of a document that was read as a whole."""

from fivefold import Embedder

DOCUMENT = (
    "Berlin is the capital of Germany. It has three and a half million inhabitants. "
    "The city lies on the Spree. Its oldest church is eight hundred years old."
)

embedder = Embedder.load()
chunks = embedder.encode_chunks(DOCUMENT, chunk_tokens=12)
scores = chunks.vectors @ embedder.encode_query("How many people live in Berlin?")
for score, (start, stop), text in zip(scores.tolist(), chunks.spans.tolist(), chunks.texts, strict=True):
    print(f"{score:.3f}  [{start}:{stop}]  {text}")
