"""A decoder on OpenVINO: feeds tokens of several sequences, keeps their cache, hands out logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.extras import need

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]


TOKENS = 2048
"""Tokens of one pass: unpacking the weights costs as much for few as for many."""
SCORED = 512
"""Tokens of one pass that wants logits for every position."""
GAP = 128
"""Rows that start together differ in length by less."""
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    # quantizing activations on the fly makes a row's numbers depend on its neighbours
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}


class Session:
    """One compiled model and the sequences that it holds; rows are padded on the left."""

    def __init__(self, folder: Path, threads: int | None) -> None:
        core = need("embedded", "openvino", "openvino-genai").Core()
        settings: dict[str, Any] = {**EXACT, "CACHE_DIR": str(folder / "compiled")}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._request = core.compile_model(str(folder / "model.xml"), "CPU", settings).create_infer_request()
        self._mask = np.zeros((0, 0), np.int64)
        self._order = np.zeros(0, np.int32)

    def start(self, prompts: Sequence[Sequence[int]]) -> Logits:
        """Forget everything, read the prompts, return the logits after each."""
        for _, logits in self._read(prompts, TOKENS // len(prompts), keep=1):
            last = logits[:, -1]
        return last

    def read(self, tokens: Sequence[int]) -> Iterator[tuple[int, Logits]]:
        """One sequence, chunk by chunk: (position, logits of every token from there on)."""
        for first, logits in self._read([tokens], SCORED, keep=SCORED):
            yield first, logits[0]

    def _read(self, prompts: Sequence[Sequence[int]], width: int, keep: int) -> Iterator[tuple[int, Logits]]:
        longest = max(map(len, prompts))
        gaps = [longest - len(prompt) for prompt in prompts]
        ids = np.array([[0] * gap + list(p) for gap, p in zip(gaps, prompts, strict=True)], np.int64)
        whole = np.array([[0] * gap + [1] * (longest - gap) for gap in gaps], np.int64)
        self._request.reset_state()
        self._order = np.arange(len(prompts), dtype=np.int32)
        # no pass may hold padding alone: the first reaches into every prompt
        width = max(width, max(gaps) + 1)
        for first in range(0, longest, width):
            self._mask = whole[:, : first + width]
            yield first, self._infer(ids[:, first : first + width], keep)

    def step(self, tokens: Sequence[int]) -> Logits:
        """One more token for every row that is left."""
        self._mask = np.concatenate([self._mask, np.ones((len(tokens), 1), np.int64)], axis=1)
        return self._infer(np.array(tokens, np.int64)[:, None], 1)[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; a row that is named twice goes on twice."""
        self._order = self._order[list(rows)]
        self._mask = self._mask[list(rows)]

    def clear(self) -> None:
        """Let go of the cache."""
        self._request.reset_state()

    def _infer(self, ids: NDArray[np.int64], keep: int) -> Logits:
        positions = np.maximum(self._mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        inputs = {
            "input_ids": ids, "attention_mask": self._mask, "position_ids": positions,
            "beam_idx": self._order, "keep": np.array([keep], np.int64),
        }  # fmt: skip
        logits: Logits = self._request.infer(inputs)[0].copy()
        self._order = np.arange(len(ids), dtype=np.int32)
        return logits
