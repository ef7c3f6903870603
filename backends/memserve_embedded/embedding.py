"""The embedded embedder: all-MiniLM-L6-v2 on OpenVINO, its vectors equal to sentence-transformers'."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.errors import Closed, InvalidInput
from memserve.missing import need
from memserve.protocol import Embeddings, Ranking, Usage
from memserve_embedded import EMBEDDING, RERANKING
from memserve_embedded.fetch import known, ready

if TYPE_CHECKING:
    from numpy.typing import NDArray


log = logging.getLogger("memserve.embedded")
HEADS = 12
EPSILON = 1e-12


class Bert:
    """Builds the OpenVINO graph of BERT; `weights` are float32 arrays by their names in the checkpoint."""

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


LONGEST = 256
"""Tokens, as the checkpoint's sentence_bert_config.json says."""
BATCH_TOKENS = 2048


class EmbeddedEmbedder:
    """One encoder in this process. Calls take turns."""

    able = EMBEDDING

    def __init__(self, request: Any, tokenizer: Any, engine: str) -> None:
        weights = known("minilm")
        self.capabilities = replace(self.able, engine=engine, model=weights.model, context=LONGEST)
        self.identity = {"package": weights.package, "version": weights.version}
        self._request, self._tokenizer = request, tokenizer
        self._turn = threading.Lock()

    def embed(self, texts: Sequence[str], *, role: str | None = None, normalize: bool | None = None,
              dimensions: int | None = None) -> Embeddings:  # fmt: skip
        """Vectors in the order of the texts; the model has no prompts, so every role reads alike."""
        if role not in (None, *self.capabilities.roles):
            raise InvalidInput(f"unknown role {role!r}", hint="known: query, document")
        rows = self._tokenizer.encode_batch(list(texts))
        if cut := sum(bool(row.overflowing) for row in rows):
            log.warning(
                "%d of %d texts are longer than %d tokens: the rest is not read", cut, len(rows), LONGEST
            )
        ids = [row.ids for row in rows]
        with self._turn:
            if self._request is None:
                raise Closed("this engine was closed")
            vectors = self._vectors(ids)
        if dimensions is not None and not 0 < dimensions <= vectors.shape[1]:
            raise InvalidInput(f"dimensions={dimensions} is not within 1..{vectors.shape[1]}")
        vectors = np.ascontiguousarray(vectors[:, :dimensions])
        if normalize is not False:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Embeddings(vectors, Usage(prompt_tokens=sum(map(len, ids))), self.capabilities.model)

    def close(self) -> None:
        """Let the model go; a second call does nothing."""
        with self._turn:
            self._request = None

    def _vectors(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        found: dict[int, NDArray[np.float32]] = {}
        for batch in batches([len(row) for row in ids]):
            longest = len(ids[batch[0]])
            rows = [[*ids[i], *[0] * (longest - len(ids[i]))] for i in batch]
            mask = [[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in batch]
            inputs = {"input_ids": np.array(rows, np.int64), "attention_mask": np.array(mask, np.int64)}
            found.update(zip(batch, self._request.infer(inputs)[0].copy(), strict=True))
        return np.stack([found[i] for i in range(len(ids))])


class EmbeddedReranker(EmbeddedEmbedder):
    """Scores documents by the cosine of their vectors with the query's; it is no cross-encoder."""

    able = RERANKING

    def rerank(self, query: str, documents: Sequence[str]) -> Ranking:
        """One score from -1 to 1 a document, in order."""
        found = self.embed([query, *documents])
        scores = found.vectors[1:] @ found.vectors[0]
        return Ranking(tuple(map(float, scores)), found.usage, self.capabilities.model)


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in batches of like length, the longest first."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    start = 0
    while start < len(order):
        rows = max(1, BATCH_TOKENS // lengths[order[start]])
        yield order[start : start + rows]
        start += rows


def embedding(threads: int | None, kind: type[EmbeddedEmbedder] = EmbeddedEmbedder) -> EmbeddedEmbedder:
    """Fetch the weights if they are not here yet, and start."""
    openvino = need("embedded", "openvino", "openvino-genai")
    folder = ready("minilm", _save)
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "CACHE_DIR": str(folder / "compiled")}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(str(folder / "openvino_model.xml"), "CPU", settings)
    tokenizer = need("embedded", "tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    version = openvino.get_version().partition("-")[0]
    return kind(compiled.create_infer_request(), tokenizer, f"openvino {version}")


def _save(folder: Path) -> None:
    """The graph in OpenVINO's own format."""
    openvino = need("embedded", "openvino", "openvino-genai")
    safetensors = need("embedded", "safetensors.numpy", "safetensors")
    file = folder / "model.safetensors"
    openvino.save_model(Bert(safetensors.load_file(str(file))).graph(), str(folder / "openvino_model.xml"),
                        compress_to_fp16=False)  # fmt: skip
    file.unlink()
