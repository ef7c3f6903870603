"""A toy language model: bytes are tokens, and a hash of the text so far decides what comes next."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memserve.errors import InvalidInput

BOS, EOS = 256, 257
ROLES = {"system": 258, "user": 259, "assistant": 260}
VOCABULARY = 261
CONTEXT = 512
_LETTERS = frozenset(b" etaoinshrdlucmfwypvbgkqjxz.,")


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the distribution."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None


def encode(text: str) -> list[int]:
    """Plain text: one BOS, then the bytes."""
    body = text.removeprefix("<s>")
    return [BOS, *body.encode()]


def render(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The chat template: BOS, then each message between its role and EOS."""
    tokens = [BOS]
    for message in messages:
        said = "user" if message["role"] == "tool" else message["role"]
        if said not in ROLES:
            raise InvalidInput(f"the toy knows no role {said!r}", hint=", ".join(ROLES))
        role = ROLES[said]
        calls = [str(call["function"]) for call in message.get("tool_calls") or ()]
        tokens += [role, *"".join([words(message["content"]), *calls]).encode(), EOS]
    return [*tokens, ROLES["assistant"]]


def words(content: Any) -> str:
    """A message's text; of a picture the toy sees a hash."""
    parts = [{"type": "text", "text": content or ""}] if isinstance(content, (str, type(None))) else content
    seen = [
        part["text"] if part["type"] == "text"
        else f"[{hashlib.sha256(part['image_url']['url'].encode()).hexdigest()[:12]}]"
        for part in parts
    ]  # fmt: skip
    return "".join(seen)


def decode(tokens: Sequence[int]) -> str:
    """Bytes back to text."""
    return bytes(t for t in tokens if t < BOS).decode("utf-8", "replace")


def logprobs(tokens: Sequence[int]) -> list[float]:
    """Natural-log probabilities of the next token; special tokens but EOS never follow."""
    state = hashlib.sha256(b"".join(t.to_bytes(2, "big") for t in tokens)).digest()
    noise = hashlib.shake_256(state).digest(EOS + 1)
    logits = [value / 32 + (5.0 if token in _LETTERS else 0.0) for token, value in enumerate(noise)]
    logits[BOS] = -math.inf
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


def pick(row: Sequence[float], sampling: Sampling, draw: random.Random) -> int:
    """One token: the likeliest, or a draw from what temperature, top_k, top_p and min_p leave."""
    order = sorted(range(len(row)), key=row.__getitem__, reverse=True)
    if sampling.temperature == 0:
        return order[0]
    if sampling.top_k:
        order = order[: sampling.top_k]
    weights = [math.exp((row[t] - row[order[0]]) / sampling.temperature) for t in order]
    kept = [w if w >= sampling.min_p else 0.0 for w in weights]
    limit, mass, size = sampling.top_p * sum(kept), 0.0, 0
    while size < len(kept) and mass < limit:
        mass += kept[size]
        size += 1
    return draw.choices(order[: max(1, size)], kept[: max(1, size)])[0]


def continue_text(tokens: Sequence[int], limit: int, sampling: Sampling) -> Iterator[tuple[int, list[float]]]:
    """Tokens one by one with the distribution each came from; ends after EOS or `limit`."""
    draw = random.Random(sampling.seed)
    text = list(tokens)
    for _ in range(limit):
        row = logprobs(text)
        token = pick(row, sampling, draw)
        text.append(token)
        yield token, row
        if token == EOS:
            return
