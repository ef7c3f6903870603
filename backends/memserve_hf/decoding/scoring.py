"""Log-likelihoods in one pass for many pairs, and whether a way of decoding gives the model's own logits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from memserve.errors import ModelUnreadable
from memserve.protocol import Score
from memserve.tokens.drawing import Told
from memserve.tokens.prompts import Prompts, ScorePair
from memserve_hf.decoding.row import Job, Row
from memserve_hf.decoding.slots import cache_argument
from memserve_hf.decoding.stepper import Head, Slots, held_back, placed

if TYPE_CHECKING:
    from torch import Tensor


LOGITS = 1 << 26
"""Elements of one pass's logits, at most."""


class Scorer:
    """Scores pairs with one model."""

    def __init__(self, model: Any, head: Head, prompts: Prompts, *, device: torch.device, width: int) -> None:
        self.model, self.head, self.prompts, self.device, self.width = model, head, prompts, device, width

    def run(self, pairs: Sequence[ScorePair]) -> list[Score]:
        """Scores in the order of the pairs."""
        scores: dict[int, Score] = {}
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].tokens), reverse=True)
        for batch in self._batches(pairs, order):
            scores.update(zip(batch, self._score([pairs[i] for i in batch]), strict=True))
        return [scores[i] for i in range(len(pairs))]

    def _batches(self, pairs: Sequence[ScorePair], order: Sequence[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        longest = count = 0
        for i in order:
            longest, count = max(longest, len(pairs[i].tokens)), max(count, pairs[i].count)
            size = len(batch) + 1
            if batch and (size * longest > self.width or size * count * self.prompts.vocabulary > LOGITS):
                yield batch
                batch, longest, count = [], len(pairs[i].tokens), pairs[i].count
            batch.append(i)
        if batch:
            yield batch

    def _score(self, pairs: Sequence[ScorePair]) -> Iterator[Score]:
        count = max(pair.count for pair in pairs)
        keep = [[min(pair.start - 1 + k, len(pair.read) - 1) for k in range(count)] for pair in pairs]
        logits = self._logits(pairs, keep)
        for row, pair in zip(logits, pairs, strict=True):
            wanted = torch.tensor(pair.tokens[pair.start :], device=row.device)[:, None]
            scores = torch.log_softmax(row[: pair.count].float(), dim=-1)
            best = row[: pair.count].argmax(dim=-1)[:, None]
            values, most = scores.gather(1, wanted), scores.gather(1, best)
            columns = (column[:, 0].tolist() for column in (wanted, values, best, most))
            told, greedy = Told(self.prompts.tokenizer, *columns), bool((best == wanted).all())
            yield Score(float(values.double().sum()), pair.count, greedy, told)

    def _logits(self, pairs: Sequence[ScorePair], keep: list[list[int]]) -> Tensor:
        longest = max(len(pair.read) for pair in pairs)
        gaps = [longest - len(pair.read) for pair in pairs]
        padded = [[*pair.read, *[pair.tokens[-1]] * gap] for pair, gap in zip(pairs, gaps, strict=True)]
        mask = [[1] * (longest - gap) + [0] * gap for gap in gaps]
        with self.head.keeping(keep):
            logits = self.model(
                input_ids=torch.tensor(padded, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device) if any(gaps) else None,
                use_cache=False,
            ).logits
        return self.head.trim(logits, keep)


class Singles:
    """Each row in its own passes, with the model's own cache: slower than slots, right for any architecture.

    Without a cache, each pass reads all tokens.
    """

    def __init__(self, model: Any, head: Head, *, device: torch.device, cached: bool = True) -> None:
        self.model, self.head, self.device = model, head, device
        self.name = cache_argument(model) if cached else None
        self.rows: list[Row] = []
        self._caches: dict[int, Any] = {}

    def ahead(self, job: Job) -> int:
        return 0

    def prefill(self, rows: Sequence[Row]) -> Tensor:
        logits = []
        for row in rows:
            row.length = len(row.job.prompt)
            last, self._caches[id(row)] = self.run(row.job.prompt, None)
            logits.append(last)
            self.rows.append(row)
        return torch.stack(logits)

    def clone(self, row: Row) -> None:
        self.prefill([row])

    def decode(self) -> Tensor:
        logits = []
        for row in self.rows:
            tokens = [row.last] if self.name else [*row.job.prompt, *row.tokens]
            last, self._caches[id(row)] = self.run(tokens, self._caches[id(row)])
            logits.append(last)
            row.length += 1
        return torch.stack(logits)

    def drop(self, row: Row) -> None:
        self.rows.remove(row)
        del self._caches[id(row)]

    def clear(self) -> None:
        self.rows.clear()
        self._caches.clear()

    def run(self, tokens: list[int], cache: Any) -> tuple[Tensor, Any]:
        """The logits after the tokens, and the cache that goes on from there."""
        own = {self.name: cache} if self.name and cache is not None else {}
        held_back(self.model)
        with self.head.keeping([[len(tokens) - 1]]):
            out = self.model(
                input_ids=torch.tensor([tokens], device=self.device), use_cache=self.name is not None, **own
            )
        return out.logits[0, -1], getattr(out, self.name) if self.name else None


LENGTHS = (3, 5)
LIKENESS = {torch.float32: 0.9999}
LIKENESS_OF_HALF = 0.97
"""Correlation of the logits; a wrong mask or position falls far below, rounding and expert routing do not."""
log = logging.getLogger("memserve.hf")
_REFUSALS = (
    RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError,
    AssertionError,
)  # fmt: skip


def agrees(stepper: Slots | Singles, vocabulary: int) -> bool:
    """Two prompts of unlike length and one more token each, against plain passes without a cache."""
    prompts = [[(7 + 13 * i + 5 * n) % vocabulary for i in range(n)] for n in LENGTHS]
    decode = _in_singles if isinstance(stepper, Singles) else _in_slots
    try:
        wanted = torch.stack([_plain(stepper, prompt) for prompt in prompts])
        _numbers(wanted, stepper.model)
        made = decode(stepper, prompts)  # type: ignore[arg-type]
    except _REFUSALS as error:
        log.info("%s does not work with this model: %s", type(stepper).__name__, error)
        return False
    finally:
        stepper.clear()
    likeness = min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(made, wanted, strict=True))
    log.debug("probe of %s: likeness %.5f", type(stepper).__name__, likeness)
    return likeness >= LIKENESS.get(stepper.model.dtype, LIKENESS_OF_HALF)


def shows(slots: Slots, count: int, seen: Any) -> bool:
    """The same with a picture, beside a prompt of text."""
    more = seen.inputs["input_ids"][0, [-1, 0]].tolist()
    try:
        wanted = [_shown(slots, seen.inputs, more[: n + 1]) for n in range(2)]
        slots.run(0, [0], [more * 2], [[3]])
        _, shift = slots.see(1, count, seen)
        steps = enumerate(more)
        made = [slots.run(0, [4 + n, count + n], [[t], [t]], [[0], [0]], [0, shift])[1, 0] for n, t in steps]
    except _REFUSALS as error:
        log.info("pictures are not seen in company: %s", error)
        return False
    finally:
        slots.clear()
    pairs = zip(made, wanted, strict=True)
    likeness = min(float(torch.corrcoef(torch.stack([a.float(), b.float()]))[0, 1]) for a, b in pairs)
    log.debug("probe with a picture: likeness %.5f", likeness)
    return likeness >= LIKENESS.get(slots.model.dtype, LIKENESS_OF_HALF)


def _shown(slots: Slots, inputs: Mapping[str, Tensor], more: list[int]) -> Tensor:
    whole, shape = {}, inputs["input_ids"].shape
    for name, one in inputs.items():
        tail = more if name == "input_ids" else [int(name == "attention_mask")] * len(more)
        longer = torch.cat([one, one.new_tensor([tail])], dim=1) if one.shape == shape else one
        whole[name] = placed(longer, slots.model, slots.device)
    held_back(slots.model)
    logits: Tensor = slots.model(**whole, use_cache=False).logits[0, -1]
    held_back(slots.model)
    return logits


def reads_text(model: Any, device: torch.device) -> bool:
    """Does it answer words alone?"""
    if getattr(model.config, "is_encoder_decoder", False):
        return False
    try:
        ids = torch.tensor([[7, 20, 33]], device=device)
        return bool(model(input_ids=ids, use_cache=False).logits.shape[1] == ids.shape[1])
    except _REFUSALS as error:
        log.info("%s does not take text alone: %s", type(model).__name__, error)
        return False


def _numbers(logits: Tensor, model: Any) -> None:
    """Refuse weights that make no numbers: they would answer with the vocabulary's first token for ever."""
    if torch.isnan(logits).any():
        raise ModelUnreadable(
            f"{model.name_or_path}: the logits are not numbers in {str(model.dtype)[6:]}",
            path=model.name_or_path, field="weights",
            hint="pass dtype='bfloat16' or 'float32'; if they stay so, the weights are damaged",
        )  # fmt: skip


def _in_singles(singles: Singles, prompts: list[list[int]]) -> Tensor:
    logits = []
    for prompt in prompts:
        _, cache = singles.run(prompt[:-1], None)
        logits.append(singles.run(prompt[-1:], cache)[0].float())
    return torch.stack(logits)


def _in_slots(slots: Slots, prompts: list[list[int]]) -> Tensor:
    starts = [len(prompt) - 1 for prompt in prompts]
    longest = max(starts)
    padded = [prompt[:-1] + [prompt[0]] * (longest - len(prompt) + 1) for prompt in prompts]
    if slots.flash:
        for slot, prompt in enumerate(prompts):
            slots.run(slot, [0], [prompt[:-1]], [[0]])
    else:
        slots.run(0, [0] * len(prompts), padded, [[0]] * len(prompts))
    logits = slots.run(0, starts, [[prompt[-1]] for prompt in prompts], [[0]] * len(prompts))
    return logits[:, 0].float()


def _plain(stepper: Slots | Singles, prompt: list[int]) -> Tensor:
    ids = torch.tensor([prompt], device=stepper.device)
    logits: Tensor = stepper.model(input_ids=ids, use_cache=False).logits
    return logits[0, -1].float()
