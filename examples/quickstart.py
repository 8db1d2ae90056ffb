"""Find the document that answers a question, across languages."""

from fivefold import Embedder

embedder = Embedder.load()
documents = [
    "Pinguine leben fast nur auf der Südhalbkugel.",
    "Le café se boit chaud ou glacé.",
    "Гора Эверест — самая высокая вершина мира.",
]
scores = embedder.encode_document(documents) @ embedder.encode_query("Where do penguins live?")
for score, document in sorted(zip(scores.tolist(), documents, strict=True), reverse=True):
    print(f"{score:.3f}  {document}")
