"""A BERT encoder with mean pooling as an OpenVINO graph, straight from its safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.extras import need

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADS = 12
EPSILON = 1e-12


class Bert:
    """Builds the graph; `weights` are float32 arrays by their names in the checkpoint."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.weights = weights
        self.op = need("embedded", "openvino.opset13", "openvino-genai")

    def graph(self) -> Any:
        """Inputs: token ids and mask [rows, tokens]. Output: one bare vector a row."""
        op = self.op
        ids = op.parameter([-1, -1], np.int64, name="input_ids")
        mask = op.parameter([-1, -1], np.int64, name="attention_mask")
        ids.output(0).get_tensor().set_names({"input_ids"})
        mask.output(0).get_tensor().set_names({"attention_mask"})
        weight = op.convert(mask, np.float32)
        blocked = op.unsqueeze(
            op.multiply(op.subtract(weight, np.float32(1)), np.float32(1e30)), op.constant([1, 2])
        )
        states = self._embedded(ids)
        layers = 1 + max(
            int(name.split(".")[2]) for name in self.weights if name.startswith("encoder.layer.")
        )
        for layer in range(layers):
            states = self._layer(states, blocked, f"encoder.layer.{layer}.")
        weight = op.unsqueeze(weight, op.constant(2))
        total = op.reduce_sum(op.multiply(states, weight), op.constant([1]))
        pooled = op.divide(total, op.maximum(op.reduce_sum(weight, op.constant([1])), np.float32(1e-9)))
        return need("embedded", "openvino", "openvino-genai").Model([pooled], [ids, mask], "bert")

    def _embedded(self, ids: Any) -> Any:
        op, zero = self.op, self.op.constant(0)
        words = op.gather(self._constant("embeddings.word_embeddings.weight"), ids, zero)
        count = op.gather(op.shape_of(ids), op.constant(1), zero)
        places = op.range(op.constant(np.int64(0)), count, op.constant(np.int64(1)), output_type="i64")
        positions = op.gather(self._constant("embeddings.position_embeddings.weight"), places, zero)
        kind = op.constant(self.weights["embeddings.token_type_embeddings.weight"][0])
        return self._norm(op.add(op.add(words, op.unsqueeze(positions, zero)), kind), "embeddings.LayerNorm")

    def _layer(self, states: Any, blocked: Any, name: str) -> Any:
        op = self.op
        query, key, value = (
            self._split(self._linear(states, f"{name}attention.self.{part}"))
            for part in ("query", "key", "value")
        )
        seen = op.scaled_dot_product_attention(query, key, value, blocked, causal=False)
        joined = op.reshape(op.transpose(seen, op.constant([0, 2, 1, 3])), op.constant([0, 0, -1]), True)
        attended = self._linear(joined, f"{name}attention.output.dense")
        states = self._norm(op.add(states, attended), f"{name}attention.output.LayerNorm")
        wide = op.gelu(self._linear(states, f"{name}intermediate.dense"), "erf")
        return self._norm(
            op.add(states, self._linear(wide, f"{name}output.dense")), f"{name}output.LayerNorm"
        )

    def _split(self, states: Any) -> Any:
        op = self.op
        heads = op.reshape(states, op.constant([0, 0, HEADS, -1]), True)
        return op.transpose(heads, op.constant([0, 2, 1, 3]))

    def _linear(self, states: Any, name: str) -> Any:
        product = self.op.matmul(states, self._constant(f"{name}.weight"), False, True)
        return self.op.add(product, self._constant(f"{name}.bias"))

    def _norm(self, states: Any, name: str) -> Any:
        op = self.op
        plain = op.mvn(states, op.constant([2]), True, EPSILON, "inside_sqrt")
        return op.add(op.multiply(plain, self._constant(f"{name}.weight")), self._constant(f"{name}.bias"))

    def _constant(self, name: str) -> Any:
        return self.op.constant(self.weights[name])
