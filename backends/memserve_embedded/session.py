"""A decoder on OpenVINO, and which requests it decodes side by side: those of like length."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.errors import MemserveError
from memserve.missing import need
from memserve.protocol import Delta, FinishReason, Request, TokenLogprob
from memserve.tokens.detokenizer import Detokenizer
from memserve_embedded.grammar import Matcher

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


ROWS = 32
"""Sequences decoded side by side."""
POSITIONS = 16 * 4096
"""Positions of all of them together."""
GATHER_SECONDS = 0.01
"""How long the first waits for another: a fraction of what its first token takes."""


@dataclass(eq=False)
class Row:
    """One sample in the making."""

    request: Request
    random: Random
    text: Detokenizer
    most: int
    matcher: Matcher | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None


@dataclass(eq=False)
class Asked:
    """One request with its prompt's tokens, and then its rows."""

    request: Request
    prompt: list[int]
    most: int
    error: MemserveError | None = None
    rows: list[Row] = field(default_factory=list)
    live: bool = False
    given_up: bool = False
    deltas: SimpleQueue[Delta | None] = field(default_factory=SimpleQueue)
    finished: threading.Event = field(default_factory=threading.Event)

    def end(self, error: MemserveError | None = None) -> None:
        """Everything is said, or this is why not: wake whoever waits."""
        self.error = self.error or error
        self.finished.set()
        self.deltas.put(None)


def groups(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Requests of like length together, the longest first, within `ROWS` and `POSITIONS`."""
    group: list[Asked] = []
    for one in sorted(asked, key=lambda one: len(one.prompt), reverse=True):
        rows = sum(other.request.n for other in group) + one.request.n
        reach = max(len(other.prompt) + other.most for other in [*group, one])
        gap = len(group[0].prompt) - len(one.prompt) if group else 0
        if group and (rows > ROWS or rows * reach > POSITIONS or gap >= GAP):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def portions(group: Sequence[Asked]) -> Iterator[list[tuple[Asked, Row]]]:
    """A group's rows; of many samples of one request, which is alone then, as many as have room."""
    rows = [(one, row) for one in group for row in one.rows]
    reach = max(len(one.prompt) + one.most for one in group)
    share = max(1, min(ROWS, POSITIONS // reach)) if len(group) == 1 else len(rows)
    for first in range(0, len(rows), share):
        yield rows[first : first + share]
