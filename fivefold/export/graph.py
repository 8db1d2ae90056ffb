"""The encoder as an ONNX graph: every node written out, nothing traced.

    input_ids, attention_mask [B, L], task_id [B]  ->  last_hidden_state [B, L, D]

Numbers are int64 and states float32. `task_id` counts the config's tasks, -1 is the body without adapter; a model without
adapters, or with one merged, has no such input. Low-rank terms of all tasks lie side by side: each token computes K R
columns, keeps the R of its row's task, and multiplies them back. Where no token is masked, attention is the kernel whose
memory grows with L alone.

In 8 bits matrices are codes with a scale for each block of 32, and inputs are quantised as they come, by row and block, so
that no row sees its neighbours; the word table has a scale for each row. Low-rank terms stay float32.

Weights lie in a file beside the graph, which therefore has no limit of size. Three operators are ONNX Runtime's own:
MultiHeadAttention, RotaryEmbedding and, in 8 bits, MatMulNBits.

Shapes: B rows, L tokens of the longest row, D hidden, K tasks, R rank, V words, I and O columns of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.attention import rotary_tables
from fivefold.compact import INT8
from fivefold.config import NO_TASK
from fivefold.errors import CheckpointError
from fivefold.lora import LoRAEmbedding, LoRALinear
from fivefold.model import Block, Encoder
from fivefold.packing import TaskSlice

OPSET, IR_VERSION = 20, 10
CONTRIB = "com.microsoft"
CONTRIB_OPERATORS = frozenset({"MultiHeadAttention", "RotaryEmbedding", "MatMulNBits"})
ALIGNMENT = 64
"""Bytes to which every weight is aligned in its file, for kernels that read it in place."""
BLOCK = 32
"""Inputs of a weight that share a scale in MatMulNBits."""
ZERO_POINT = 0x80
"""MatMulNBits takes unsigned codes around 128; flipping the highest bit turns signed ones into them."""


def write_graph(encoder: Encoder, path: Path, *, int8: bool = False) -> None:
    """Write an encoder of float32 weights as `path`, and its weights beside it under that name and `_data`.

    Raises:
        CheckpointError: the model is of the older family, whose block these nodes are not.
    """
    if encoder.config.position_embedding_type != "rotary":
        raise CheckpointError("JinaBERT (v2) models cannot be exported to ONNX, only v3's; use backend='torch'")
    beside = path.with_name(f"{path.name}_data")
    with beside.open("wb") as file:
        model = EncoderGraph(encoder, Nodes(file, beside.name), int8=int8).model()
    onnx.save(model, path)


class Nodes:
    """A graph being written: nodes in order, shapes and indices inside it, weights in the file beside it."""

    def __init__(self, file: BinaryIO, location: str) -> None:
        self.file, self.location = file, location
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def indices(self, name: str, values: Sequence[int]) -> str:
        """Keep a few whole numbers inside the graph; -> the name."""
        self.constants.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def weight(self, name: str, tensor: Tensor) -> str:
        """Append a tensor to the file; -> the name."""
        array = tensor.detach().contiguous().numpy()
        self.file.write(bytes(-self.file.tell() % ALIGNMENT))
        place = {"location": self.location, "offset": self.file.tell(), "length": array.nbytes}
        self.file.write(array.data)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        stored = TensorProto(name=name, dims=array.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
        for key, value in place.items():
            stored.external_data.add(key=key, value=str(value))
        self.constants.append(stored)
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Any] | None = None) -> str:
        """Append a node with one output; -> the output's name."""
        self.nodes.append(_node(kind, inputs, [output], attributes))
        return output

    def split(self, x: str, outputs: Sequence[str]) -> Sequence[str]:
        """Cut the last axis into equal parts; -> their names."""
        self.nodes.append(_node("Split", [x], outputs, {"axis": -1, "num_outputs": len(outputs)}))
        return outputs


def _node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any] | None = None
) -> onnx.NodeProto:
    domain = CONTRIB if kind in CONTRIB_OPERATORS else ""
    return helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **dict(attributes or {}))


class EncoderGraph:
    """One encoder on its way into `Nodes`. Methods take and give names of values, [B, L, D] where nothing else is said."""

    def __init__(self, encoder: Encoder, to: Nodes, *, int8: bool) -> None:
        self.encoder, self.config, self.to, self.int8 = encoder, encoder.config, to, int8
        self.routed = encoder.embeddings.token_type_embeddings.lora_A is not None

    def model(self) -> onnx.ModelProto:
        """The whole graph; the weights are in the file once this returns."""
        self._inputs()
        x = self._embeddings()
        for number, block in enumerate(self.encoder.layers):
            assert isinstance(block, Block)
            x = self._block(f"layers.{number}", block, x)
        self.to.add("Identity", [x], "last_hidden_state")
        named = {"input_ids": ["batch", "length"], "attention_mask": ["batch", "length"]}
        if self.routed:
            named["task_id"] = ["batch"]
        graph = helper.make_graph(
            self.to.nodes,
            "fivefold",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in named.items()],
            [self._states("last_hidden_state")],
            initializer=self.to.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="fivefold")

    def _inputs(self) -> None:
        """What every layer reads: masks, rotary tables, and which low-rank columns belong to each row's task."""
        to, config = self.to, self.config
        to.indices("middle_axis", [1])
        to.indices("first_position", [0])
        lowest = to.add("ReduceMin", ["attention_mask"], "lowest_mask", {"keepdims": 0})
        to.add("Cast", [lowest], "nothing_masked", {"to": TensorProto.BOOL})
        to.add("Cast", ["attention_mask"], "mask", {"to": TensorProto.INT32})
        positions = torch.arange(config.max_position_embeddings)
        tables = rotary_tables(positions, config.head_dim, config.rotary_emb_base, torch.float32)
        for name, table in zip(("cos", "sin"), tables, strict=True):
            to.weight(name, table[:, 0])
        if self.routed:
            columns = torch.eye(len(config.lora_adaptations)).repeat_interleave(config.lora_rank, dim=1)  # [K, K R]
            # task_id -1 takes the last row, of zeros
            self._of_the_task("columns", F.pad(columns * config.lora_scaling, (0, 0, 0, 1)))

    def _of_the_task(self, name: str, table: Tensor) -> str:
        """The row of table [K + 1, n] that belongs to the task of each batch row: [B, 1, n]."""
        rows = self.to.add("Gather", [self.to.weight(f"{name}.table", table), "task_id"], f"{name}.rows")
        return self.to.add("Unsqueeze", [rows, "middle_axis"], name)

    def _embeddings(self) -> str:
        to, embeddings = self.to, self.encoder.embeddings
        x = self._words("words", embeddings.word_embeddings)
        zero, adapters = torch.zeros(1, dtype=torch.int64), range(len(self.config.lora_adaptations))
        tasks = (*adapters, NO_TASK) if self.routed else (NO_TASK,)
        types = [embeddings.token_type_embeddings(zero, (TaskSlice(task, 0, 1),)) for task in tasks]  # [1, D] each
        row = self._of_the_task("types", torch.cat(types)) if self.routed else to.weight("types", types[0])
        return self._norm("embeddings.norm", embeddings.norm, to.add("Add", [x, row], "embedded"))

    def _words(self, name: str, words: LoRAEmbedding) -> str:
        to = self.to
        if self.int8:
            codes, scales = INT8.encode(words.weight)
            stored = to.add("Gather", [to.weight(f"{name}.codes", codes), "input_ids"], f"{name}.stored")
            scale = to.add("Gather", [to.weight(f"{name}.scales", scales[:, None]), "input_ids"], f"{name}.scale")
            stored = to.add("Cast", [stored], f"{name}.float", {"to": TensorProto.FLOAT})
            x = to.add("Mul", [stored, scale], f"{name}.plain")
        else:
            x = to.add("Gather", [to.weight(f"{name}.weight", words.weight), "input_ids"], f"{name}.plain")
        if words.lora_A is None or words.lora_B is None:
            return x
        table = to.weight(f"{name}.lora_A", words.lora_A.transpose(0, 1).flatten(1))  # [V, K R]
        low = to.add("Gather", [table, "input_ids"], f"{name}.low")
        return self._raised(name, x, low, words.lora_B)

    def _linear(self, name: str, layer: LoRALinear, x: str) -> str:
        """x [B, L, I] -> [B, L, O]."""
        to = self.to
        assert layer.bias is not None, "only JinaBERT's block has linears without"
        bias = to.weight(f"{name}.bias", layer.bias)
        if self.int8:
            y = self._product_of_codes(name, layer.weight, x, bias)
        else:
            y = to.add("MatMul", [x, to.weight(f"{name}.weight", layer.weight.T)], f"{name}.product")
            y = to.add("Add", [y, bias], f"{name}.plain")
        if layer.lora_A is None or layer.lora_B is None:
            return y
        low = to.add("MatMul", [x, to.weight(f"{name}.lora_A", layer.lora_A.flatten(0, 1).T)], f"{name}.low")
        return self._raised(name, y, low, layer.lora_B.transpose(1, 2))

    def _product_of_codes(self, name: str, weight: Tensor, x: str, bias: str) -> str:
        """x [B, L, I] times weight [O, I], plus bias."""
        rows, columns = weight.shape
        blocks = F.pad(weight, (0, -columns % BLOCK)).view(rows, -1, BLOCK)
        codes, scales = INT8.encode(blocks.flatten(0, 1))
        inputs = [
            x,
            self.to.weight(f"{name}.codes", (codes.view(torch.uint8) ^ ZERO_POINT).view_as(blocks)),
            self.to.weight(f"{name}.scales", scales.view(rows, -1)),
            *("", ""),  # zero points and an order of columns, which this has not
            bias,
        ]
        # accuracy_level 4: the input in 8 bits too
        shape = {"K": columns, "N": rows, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        return self.to.add("MatMulNBits", inputs, f"{name}.plain", shape)

    def _raised(self, name: str, plain: str, low: str, lora_b: Tensor) -> str:
        """Add to `plain` the low-rank columns of each row's own task, multiplied back: low [B, L, K R], lora_b [K, R, O]."""
        to = self.to
        own = to.add("Mul", [low, "columns"], f"{name}.own")
        term = to.add("MatMul", [own, to.weight(f"{name}.lora_B", lora_b.flatten(0, 1))], f"{name}.term")
        return to.add("Add", [plain, term], name)

    def _norm(self, name: str, norm: nn.LayerNorm, x: str) -> str:
        inputs = [x, self.to.weight(f"{name}.weight", norm.weight), self.to.weight(f"{name}.bias", norm.bias)]
        return self.to.add("LayerNormalization", inputs, name, {"epsilon": norm.eps, "axis": -1})

    def _block(self, name: str, block: Block, x: str) -> str:
        to = self.to
        mixed = self._attention(f"{name}.attention", block, x)
        x = self._norm(f"{name}.norm1", block.norm1, to.add("Add", [x, mixed], f"{name}.after_attention"))
        y = to.add("Gelu", [self._linear(f"{name}.fc1", block.mlp.fc1, x)], f"{name}.gelu")
        y = self._linear(f"{name}.fc2", block.mlp.fc2, y)
        return self._norm(f"{name}.norm2", block.norm2, to.add("Add", [x, y], f"{name}.after_mlp"))

    def _attention(self, name: str, block: Block, x: str) -> str:
        to = self.to
        q, k, v = to.split(self._linear(f"{name}.Wqkv", block.attention.Wqkv, x), [f"{name}.{part}" for part in "qkv"])
        q, k = (to.add("RotaryEmbedding", [part, "first_position", "cos", "sin"], f"{part}.turned") for part in (q, k))
        # The mask alone decides which kernel runs, and the one that takes a mask needs memory for all L x L scores.
        mixed = to.add(
            "If",
            ["nothing_masked"],
            f"{name}.mixed",
            {
                "then_branch": self._kernel(f"{name}.unmasked", [q, k, v]),
                "else_branch": self._kernel(f"{name}.masked", [q, k, v, "", "mask"]),
            },
        )
        return self._linear(f"{name}.out_proj", block.attention.out_proj, mixed)

    def _kernel(self, name: str, inputs: list[str]) -> onnx.GraphProto:
        """A branch that is one attention node; it reads the values around it."""
        heads = {"num_heads": self.config.num_attention_heads}
        return helper.make_graph([_node("MultiHeadAttention", inputs, [name], heads)], name, [], [self._states(name)])

    def _states(self, name: str) -> onnx.ValueInfoProto:
        """What an output of [B, L, D] is declared as."""
        shape: list[str | int] = ["batch", "length", self.config.hidden_size]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
