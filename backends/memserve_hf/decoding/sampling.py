"""From logits to tokens: greedy, or one uniform number a token from the request's own generator.

A row's draw depends on its own logits and its own random numbers only, never on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from memserve.protocol import TokenLogprob
from memserve_hf.decoding.row import Row

if TYPE_CHECKING:
    from torch import Tensor


def choose(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """The next token of every row; `logits` [rows, vocabulary] are already constrained."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    drawn = [i for i, row in enumerate(rows) if row.job.settings.temperature > 0]
    if drawn:
        picked = _draw(logits[drawn].float(), [rows[i] for i in drawn])
        for i, token in zip(drawn, picked, strict=True):
            tokens[i] = token
    return tokens


def _draw(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """Inverse transform sampling over the tokens in falling order of probability."""
    settings = [row.job.settings for row in rows]
    device = logits.device

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

    heat = column([max(s.temperature, 1e-5) for s in settings])
    logits = logits - logits.amax(dim=-1, keepdim=True)
    chances, order = torch.softmax(logits / heat, dim=-1).sort(dim=-1, descending=True, stable=True)
    before = chances.cumsum(dim=-1) - chances
    ranks = torch.arange(chances.shape[1], device=device)[None, :]
    kept = before < column([s.top_p for s in settings])
    kept &= ranks < column([s.top_k or chances.shape[1] for s in settings])
    kept &= chances >= column([s.min_p for s in settings]) * chances[:, :1]
    kept[:, 0] = True
    total = (chances * kept).cumsum(dim=-1)
    point = column([row.random.random() for row in rows]) * total[:, -1:]
    at = torch.searchsorted(total, point, right=True).clamp(max=chances.shape[1] - 1)
    at = torch.minimum(at, kept.sum(dim=-1, keepdim=True) - 1)
    picked: list[int] = order.gather(1, at)[:, 0].tolist()
    return picked


def record(logits: Tensor, rows: Sequence[Row], tokens: Sequence[int], tokenizer: Any) -> None:
    """Add the log-probabilities that were asked for: natural, of the model's own unconstrained logits."""
    asking = [i for i, row in enumerate(rows) if row.job.settings.logprobs is not None]
    if not asking:
        return
    scores = torch.log_softmax(logits[asking].float(), dim=-1)
    most = max(rows[i].job.settings.logprobs or 0 for i in asking)
    values, ids = scores.topk(max(most, 1), dim=-1)
    chosen = scores.gather(1, torch.tensor([[tokens[i]] for i in asking], device=scores.device))[
        :, 0
    ].tolist()
    for i, own, top_values, top_ids in zip(asking, chosen, values.tolist(), ids.tolist(), strict=True):
        count = rows[i].job.settings.logprobs or 0
        top = [
            (token_text(tokenizer, t), v) for t, v in zip(top_ids[:count], top_values[:count], strict=True)
        ]
        rows[i].logprobs.append(TokenLogprob(token_text(tokenizer, tokens[i]), own, tokens[i], tuple(top)))


def token_text(tokenizer: Any, token: int) -> str:
    """One token alone, special or not."""
    return str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
