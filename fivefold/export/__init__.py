"""ONNX: the model as a graph, and the runtime that runs it."""
