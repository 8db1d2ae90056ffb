"""The encoder as an ONNX graph: every node written out, nothing traced.

    input_ids, attention_mask [B, L] and task_id -> last_hidden_state [B, L, D], float32

`task_id` may be a scalar, for the whole batch, or one number a row; -1 is the body without adapter. A model whose adapter was
merged has no `task_id`. Tokens lie end to end, [B L, D], everywhere but in attention. Low-rank terms of all tasks stand side
by side: each token computes K R columns, keeps its own task's R and multiplies them back. Where no token is masked, attention is the
kernel whose memory grows with L alone.

Besides ONNX's own operators the graph uses three of ONNX Runtime's: MultiHeadAttention, RotaryEmbedding and, in
8 bits, MatMulNBits.

Shapes: B rows, L tokens of the longest row, D hidden, H head dim, K tasks, R rank, I and O columns of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from fivefold.attention import rotary_tables
from fivefold.config import ModelConfig
from fivefold.lora import LoRAEmbedding, LoRALinear
from fivefold.model import Block, Embeddings, Encoder

OPSET, IR_VERSION = 20, 10
CONTRIB = "com.microsoft"
CONTRIB_OPERATORS = frozenset({"MultiHeadAttention", "RotaryEmbedding", "MatMulNBits", "DynamicQuantizeMatMul"})
import os
MODE=os.environ.get("MODE","nb"); BLOCK=int(os.environ.get("BLK","32")); WORDS=os.environ.get("WORDS","f")

class Nodes:
    """A graph being written: nodes and constants in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Tensor | npt.NDArray[Any]) -> str:
        """Store an array under a name; -> the name."""
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(
        self, kind: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Any] | None = None
    ) -> str:
        """Append a node with one output; -> the output's name."""
        return self.split(kind, inputs, [output], attributes)[0]

    def split(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any] | None = None
    ) -> Sequence[str]:
        """Append a node with several outputs; -> their names."""
        domain = CONTRIB if kind in CONTRIB_OPERATORS else ""
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **dict(attributes or {}))
        )
        return outputs


class GraphWriter:
    def __init__(self, encoder: Encoder, int8: bool) -> None:
        self.config = encoder.config
        self.to = Nodes()
        self.int8 = int8
        self.routed = encoder.layers[0].attention.Wqkv.lora_A is not None

    def write(self, encoder):
        to = self.to
        c = self.config
        D = c.hidden_size
        shape = to.add("Shape", ["input_ids"], "shape")
        rows3 = to.add("Concat", [shape, to.constant("D1", np.array([D], np.int64))], "rows3", {"axis": 0})
        to.constant("flat", np.array([-1, D], np.int64))
        low = to.add("ReduceMin", ["attention_mask"], "lowest", {"keepdims": 0})
        to.add("Cast", [low], "full", {"to": TensorProto.BOOL})
        to.add("Cast", ["attention_mask"], "mask32", {"to": TensorProto.INT32})
        self.axis1 = to.constant("axis1", np.array([1], np.int64))
        if self.routed:
            K, R = len(c.lora_adaptations), c.lora_rank
            sel = np.zeros((K + 1, K * R), np.float32)
            for k in range(K):
                sel[k, k * R:(k + 1) * R] = c.lora_scaling
            to.constant("selector", sel)
            b = to.add("Shape", ["input_ids"], "B", {"end": 1})
            z = to.add("ConstantOfShape", [b], "zeros", {"value": numpy_helper.from_array(np.zeros(1, np.int64))})
            t = to.add("Add", ["task_id", z], "tasks")
            s = to.add("Gather", ["selector", t], "selB")
            s = to.add("Unsqueeze", [s, self.axis1], "selB1")
            self.sel3 = s
            s3 = to.add("Expand", [s, to.add("Concat", [shape, to.constant("one1", np.array([1], np.int64))], "BL1", {"axis": 0})], "selBL")
            self.sel = to.add("Reshape", [s3, to.constant("KRflat", np.array([-1, K * R], np.int64))], "sel")
        cos, sin = rotary_tables(torch.arange(c.max_position_embeddings), c.head_dim, c.rotary_emb_base, torch.float32)
        to.constant("cos", cos[:, 0]); to.constant("sin", sin[:, 0]); to.constant("first", np.array([0], np.int64))
        x = self.embeddings(encoder.embeddings)
        for n, layer in enumerate(encoder.layers):
            x = self.block(f"layers.{n}", layer, x)
        to.add("Reshape", [x, "rows3"], "last_hidden_state")
        ins = [helper.make_tensor_value_info(n, TensorProto.INT64, ["rows", "tokens"]) for n in ("input_ids", "attention_mask")]
        if self.routed:
            ins.append(helper.make_tensor_value_info("task_id", TensorProto.INT64, []))
        g = helper.make_graph(to.nodes, "fivefold", ins, [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["rows", "tokens", D])], initializer=to.constants)
        return helper.make_model(g, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)], ir_version=IR_VERSION, producer_name="fivefold")

    def embeddings(self, e):
        to = self.to
        w = e.word_embeddings
        if self.int8 and WORDS == "i":
            sc = w.weight.abs().amax(1, keepdim=True) / 127
            sc[sc == 0] = 1
            codes = (w.weight / sc).round().to(torch.int8)
            x = to.add("Cast", [to.add("Gather", [to.constant("word", codes), "input_ids"], "wc")], "wf", {"to": 1})
            x = to.add("Mul", [x, to.add("Gather", [to.constant("words", sc), "input_ids"], "ws")], "w0")
        else:
            x = to.add("Gather", [to.constant("word", w.weight), "input_ids"], "w0")
        t = e.token_type_embeddings
        if self.routed:
            low = to.add("Gather", [to.constant("wordA", w.lora_A.permute(1, 0, 2).flatten(1)), "input_ids"], "wa")
            low = to.add("Mul", [low, self.sel3], "wam")
            up = to.add("MatMul", [low, to.constant("wordB", w.lora_B.flatten(0, 1))], "wb")
            x = to.add("Add", [x, up], "w1")
            types = torch.cat([t.weight[0] + t.scaling * torch.einsum("kr,krd->kd", t.lora_A[:, 0], t.lora_B), t.weight[:1]])
            tt = to.add("Gather", [to.constant("types", types), "tasks"], "tt")
            x = to.add("Add", [x, to.add("Unsqueeze", [tt, self.axis1], "ttu")], "w2")
        else:
            x = to.add("Add", [x, to.constant("types", t.weight[0])], "w2")
        x = to.add("Reshape", [x, "flat"], "w3")
        return self.norm("embeddings.norm", e.norm, x)

    def norm(self, name, n, x):
        to = self.to
        return to.add("LayerNormalization", [x, to.constant(name + ".weight", n.weight), to.constant(name + ".bias", n.bias)], name, {"epsilon": n.eps, "axis": -1})

    def linear(self, name, l, x):
        to = self.to
        bias = to.constant(name + ".bias", l.bias)
        if not self.int8:
            y = to.add("Gemm", [x, to.constant(name + ".weight", l.weight), bias], name + ".plain", {"transB": 1})
        elif MODE == "nb":
            O, I = l.weight.shape
            w = l.weight.view(O, -1, BLOCK)
            sc = w.abs().amax(-1, keepdim=True) / 127
            q = ((w / sc).round() + 128).to(torch.uint8)
            y = to.add("MatMulNBits", [x, to.constant(name + ".weight", q), to.constant(name + ".scale", sc.flatten()), "", "", bias], name + ".plain",
              dict(K=I, N=O, bits=8, block_size=BLOCK, accuracy_level=4))
        else:
            sc = l.weight.abs().amax(1) / 127
            q = (l.weight / sc[:, None]).round().to(torch.int8).T
            y = to.add("DynamicQuantizeMatMul", [x, to.constant(name + ".weight", q), to.constant(name + ".scale", sc), "", bias], name + ".plain")
        if l.lora_A is None:
            return y
        low = to.add("Gemm", [x, to.constant(name + ".lora_A", l.lora_A.flatten(0, 1))], name + ".low", {"transB": 1})
        low = to.add("Mul", [low, self.sel], name + ".own")
        B = l.lora_B.permute(0, 2, 1).flatten(0, 1)
        return to.add("Gemm", [low, to.constant(name + ".lora_B", B), y], name)

    def block(self, name, b, x):
        to = self.to
        c = self.config
        qkv = self.linear(name + ".attention.Wqkv", b.attention.Wqkv, x)
        parts = to.split("Split", [qkv], [f"{name}.{k}" for k in "qkv"], {"axis": 1, "num_outputs": 3})
        q, k, v = (to.add("Reshape", [p, "rows3"], p + "3") for p in parts)
        q, k = (to.add("RotaryEmbedding", [p, "first", "cos", "sin"], p + "r") for p in (q, k))
        def branch(which, mask):
            o = f"{name}.{which}"
            node = helper.make_node("MultiHeadAttention", [q, k, v, *mask], [o], domain=CONTRIB, num_heads=c.num_attention_heads)
            return helper.make_graph([node], o, [], [helper.make_tensor_value_info(o, TensorProto.FLOAT, None)])
        a = to.add("If", ["full"], name + ".mixed", {"then_branch": branch("full", []), "else_branch": branch("masked", ["", "mask32"])})
        a = to.add("Reshape", [a, "flat"], name + ".mixed2")
        a = self.linear(name + ".attention.out_proj", b.attention.out_proj, a)
        x = self.norm(name + ".norm1", b.norm1, to.add("Add", [x, a], name + ".add1"))
        y = to.add("Gelu", [self.linear(name + ".mlp.fc1", b.mlp.fc1, x)], name + ".gelu")
        y = self.linear(name + ".mlp.fc2", b.mlp.fc2, y)
        return self.norm(name + ".norm2", b.norm2, to.add("Add", [x, y], name + ".add2"))
