"""Continuous batching: finished rows leave, waiting requests enter, every step serves all in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from memserve.errors import Cancelled
from memserve.protocol import TokenLogprob
from memserve.tokens.drawing import BITS, COLDEST, keys, noise
from memserve_hf.decoding.prefixes import BLOCK
from memserve_hf.decoding.row import Job, Row, Settings
from memserve_hf.decoding.stepper import Stepper

if TYPE_CHECKING:
    from torch import Tensor


def choose(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """The next token of every row; `logits` [rows, vocabulary] are already constrained.

    A row's draw depends on its own logits and its own random numbers only, never on its neighbours.
    """
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    drawn = [i for i, row in enumerate(rows) if row.job.settings.temperature > 0]
    if drawn:
        picked = _draw(logits[drawn].float(), [rows[i] for i in drawn])
        for i, token in zip(drawn, picked, strict=True):
            tokens[i] = token
    return tokens


def _draw(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """Each token's noise belongs to its row and place, so that no rounding of the others moves the choice."""
    settings = [row.job.settings for row in rows]
    heat = torch.tensor([[max(s.temperature, COLDEST)] for s in settings], device=logits.device)
    scores = (logits - logits.amax(dim=-1, keepdim=True)) / heat
    key = torch.tensor([[row.random.getrandbits(BITS)] for row in rows], device=logits.device)
    tokens = torch.arange(scores.shape[1], device=logits.device)
    drawn = scores + noise(tokens, key, torch.log, torch.log1p)
    bound = [i for i, s in enumerate(settings) if s.top_k or s.min_p or s.top_p < 1]
    if bound:
        left = _left(scores[bound], [settings[i] for i in bound])
        drawn[bound] = drawn[bound].masked_fill(~left, -torch.inf)
    picked: list[int] = drawn.argmax(dim=-1).tolist()
    return picked


def _left(scores: Tensor, settings: Sequence[Settings]) -> Tensor:
    """Which tokens top_p, top_k and min_p leave."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=scores.device)[:, None]

    chances, order = torch.softmax(scores, dim=-1).sort(dim=-1, descending=True, stable=True)
    kept = chances.cumsum(dim=-1) - chances < column([s.top_p for s in settings])
    ranks = torch.arange(chances.shape[1], device=scores.device)[None, :]
    kept &= ranks < column([s.top_k or chances.shape[1] for s in settings])
    kept &= chances >= column([s.min_p for s in settings]) * chances[:, :1]
    kept[:, 0] = True
    return torch.zeros_like(kept).scatter(1, order, kept)


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


WINDOW = 512
"""Of the waiting jobs, so many of the oldest are looked at for those of a fitting length."""
PATIENCE = 32
"""A job that younger ones overtook so often is next."""
PADDING = 1.25
"""A prefill may compute so many times the tokens that it needs."""
SMALL = 256
"""Tokens below which padding does not matter."""
REFUSALS = 64
"""After so many jobs that did not fit, the search ends."""


class Loop:
    """The state of decoding, driven step by step by one thread."""

    def __init__(self, stepper: Stepper, tokenizer: Any, *, ends: frozenset[int], max_rows: int,
                 max_positions: int, width: int) -> None:  # fmt: skip
        self.stepper, self.tokenizer, self.ends = stepper, tokenizer, ends
        self.max_rows, self.max_positions, self.width = max_rows, max_positions, width
        self.waiting: list[Job] = []

    @property
    def busy(self) -> bool:
        """Is there anything to do?"""
        return bool(self.waiting or self.stepper.rows)

    def share(self, positions: int) -> int:
        """How many rows of so many positions have room side by side."""
        return max(1, min(self.max_rows, self.max_positions // positions))

    def add(self, job: Job) -> None:
        """Queue a job."""
        self.waiting.append(job)

    def step(self) -> None:
        """Let in what fits, else decode one token of every row."""
        self._forget_cancelled()
        entering = self._entering()
        if entering:
            self._enter(entering)
        elif self.stepper.rows:
            self._advance(self.stepper.decode(), list(self.stepper.rows))

    def fail(self, error: Any) -> list[Job]:
        """Empty everything after a broken step; returns the jobs that were in flight or waiting."""
        jobs = list(dict.fromkeys([*(row.job for row in self.stepper.rows), *self.waiting]))
        self.waiting.clear()
        self.stepper.clear()
        for job in jobs:
            job.close(error)
        return jobs

    # ------------------------------------------------------------ who enters

    def _entering(self) -> list[Job]:
        """Jobs for one prefill, of similar length; of several that share an unknown block, one."""
        free = self.max_rows - len(self.stepper.rows)
        if not self.waiting or (self.stepper.rows and free < self._worthwhile()):
            return []
        group = Group(self, free)
        for job in self._candidates():
            group.offer(job)
            if group.full:
                break
        for job in self.waiting[: self.waiting.index(group.jobs[-1])] if group.jobs else ():
            job.passed += 1
        return group.jobs

    def _candidates(self) -> list[Job]:
        """The longest first, so that long answers do not trail; one that was passed too often goes ahead."""
        window = sorted(self.waiting[:WINDOW], key=lambda job: len(job.prompt), reverse=True)
        oldest = self.waiting[0]
        return [oldest, *window] if oldest.passed > PATIENCE else window

    def _worthwhile(self) -> int:
        """Free places to wait for, so that prompts are computed together: an eighth of all."""
        wanted = sum(job.count for job in self.waiting[:WINDOW])
        return max(1, min(self.max_rows // 8, wanted))

    def _enter(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.rows = [self._row(job, job.first + index) for index in range(job.count)]
        firsts = [job.rows[0] for job in jobs]
        logits = self.stepper.prefill(firsts)
        picked = {id(row): i for i, row in enumerate(firsts)}
        for job in jobs:
            for row in job.rows[1:]:
                picked[id(row)] = picked[id(job.rows[0])]
                self.stepper.clone(row)
        # only now: what breaks above must find them among the waiting, to tell them
        gone = set(map(id, jobs))
        self.waiting = [job for job in self.waiting if id(job) not in gone]
        rows = [row for job in jobs for row in job.rows]
        self._advance(logits[[picked[id(row)] for row in rows]], rows)

    def _row(self, job: Job, index: int) -> Row:
        request = job.request
        matcher = job.grammar.matcher() if job.grammar else None
        return Row(job, keys(request, index), job.text(), matcher)

    # ------------------------------------------------------------ one token each

    def _advance(self, logits: Tensor, rows: Sequence[Row]) -> None:
        constrained = self._constrain(logits, rows)
        tokens = [_forced(row, token) for row, token in zip(rows, choose(constrained, rows), strict=True)]
        record(logits, rows, tokens, self.tokenizer)
        for row, token in zip(rows, tokens, strict=True):
            self._take(row, token)

    def _constrain(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        bound = [i for i, row in enumerate(rows) if row.matcher is not None and row.text.answering]
        whole = [i for i, row in enumerate(rows) if row.job.settings.whole and row.matcher is None]
        if not (bound or whole):
            return logits
        logits = logits.clone()
        logits[torch.tensor(whole, dtype=torch.long)[:, None], list(self.ends)] = -torch.inf
        for i in bound:
            rows[i].matcher.mask(logits[i])
        return logits

    def _take(self, row: Row, token: int) -> None:
        row.tokens.append(token)
        if row.matcher is not None and row.text.answering:
            row.matcher.accept(token)
        if token in self.ends:
            row.finish = "stop"
        else:
            row.text.push(token)
            if row.text.stopped:
                row.finish = "stop"
            elif len(row.tokens) >= row.job.settings.max_tokens:
                row.finish = "length"
        if row.job.streamed:
            self._send(row)
        if row.finish:
            self._leave(row)

    def _send(self, row: Row) -> None:
        if row.finish:
            row.job.deltas.put(row.text.last(row.finish, row.job.usage))
        elif delta := row.text.delta():
            row.job.deltas.put(delta)

    def _leave(self, row: Row) -> None:
        self.stepper.drop(row)
        if all(other.finish for other in row.job.rows):
            row.job.close()

    def _forget_cancelled(self) -> None:
        for row in [row for row in self.stepper.rows if row.job.cancelled]:
            self.stepper.drop(row)
            row.job.close(Cancelled("the request was given up"))
        for job in [job for job in self.waiting if job.cancelled]:
            self.waiting.remove(job)
            job.close(Cancelled("the request was given up"))


def _forced(row: Row, token: int) -> int:
    """The token that was chosen, or the one that ends a thought which used up its budget."""
    forced = row.text.forced()
    return token if forced is None else forced


class Group:
    """Jobs that enter together: their prompts are computed in one go."""

    def __init__(self, loop: Loop, free: int) -> None:
        self.jobs: list[Job] = []
        self._loop = loop
        self._free = free
        self._lengths: list[int] = []
        self._unknown: set[bytes] = set()
        self._refusals = 0
        self._reach = max((row.reach for row in loop.stepper.rows), default=0)

    @property
    def full(self) -> bool:
        """Is it pointless to offer more?"""
        return self._free <= 0 or self._refusals >= REFUSALS

    def offer(self, job: Job) -> None:
        """Take the job in if it fits beside the others."""
        if job in self.jobs:
            return
        ahead = self._loop.stepper.ahead(job)
        left = len(job.prompt) - ahead
        unknown = job.names[ahead // BLOCK : ahead // BLOCK + 1]
        alone = not self.jobs and not self._loop.stepper.rows
        if not alone and not (self._unknown.isdisjoint(unknown) and self._fits(job, left)):
            self._refusals += 1
            return
        self.jobs.append(job)
        self._free -= job.count
        self._lengths.append(left)
        self._unknown.update(unknown)
        self._reach = max(self._reach, reach(job))

    def _fits(self, job: Job, left: int) -> bool:
        rows = len(self._loop.stepper.rows) + sum(other.count for other in self.jobs) + job.count
        if job.count > self._free or rows * max(self._reach, reach(job)) > self._loop.max_positions:
            return False
        if not self.jobs:
            return True
        lengths = [*self._lengths, left]
        padded = max(lengths) * len(lengths)
        return padded <= self._loop.width and padded <= max(SMALL, PADDING * sum(lengths))


def reach(job: Job) -> int:
    """The most positions that a row of this job can come to need."""
    return len(job.prompt) + job.settings.max_tokens
