"""ONNX: the model as a graph in a folder of its own, and ONNX Runtime as a backend. Needs the extra `onnx`."""

from fivefold.errors import MissingExtraError

try:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError(f"ONNX needs {error.name}: pip install 'fivefold[onnx]'") from None
