"""What people put together by themselves: sentence-transformers behind FastAPI, on transformers' own classes.

    python bench/serve_baseline.py FOLDER PORT        # FOLDER: `fivefold convert v3-nano FOLDER --layout transformers`

The adapter of retrieval.passage is active, its prompt goes before every text, and FastAPI runs requests on its threads, as in
the tutorials. bench/serve.py starts it.
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer

from fivefold.config import TASKS

(PROMPT,) = (task.prompt for task in TASKS if task.name == "retrieval.passage")


class Body(BaseModel):
    """Texts of one request."""

    input: list[str]


def create_app(folder: str) -> FastAPI:
    """The application of one model."""
    body = Transformer(folder)
    body.auto_model.load_adapter(folder, adapter_name="passage", adapter_kwargs={"subfolder": "retrieval_passage"})
    body.auto_model.set_adapter("passage")
    model = SentenceTransformer(modules=[body, Pooling(body.get_embedding_dimension())])
    app = FastAPI()

    @app.post("/embed")
    def embed(body: Body) -> list[list[float]]:
        return model.encode(body.input, prompt=PROMPT, normalize_embeddings=True).tolist()

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
