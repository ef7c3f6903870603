"""Pictures through the model's processor; their rows beside text, or in the model's own `generate`."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from io import BytesIO
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import LogitsProcessor, LogitsProcessorList

from memserve.errors import InvalidInput, MemserveError, Unsupported
from memserve.protocol import Request
from memserve.tokens.prompts import Prepared, Prompts
from memserve_hf.decoding.row import Job, Row
from memserve_hf.decoding.scoring import shows
from memserve_hf.decoding.stepper import Slots, Stepper, held_back, placed
from memserve_hf.opening.checkpoint import Checkpoint
from memserve_hf.opening.loading import first_line, quiet
from memserve_hf.options import Options

if TYPE_CHECKING:
    from torch import Tensor

PLAIN: dict[str, Any] = {
    "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0,
}  # fmt: skip
"""Nothing of the checkpoint's own taste: a request says how its answer is drawn."""
log = logging.getLogger("memserve.hf")


@dataclass(frozen=True, eq=False)
class Seen:
    """What the model is shown for one prompt: its arguments, where their tokens are, what stands for them."""

    inputs: Mapping[str, Any]
    first: int
    """-1: nothing of them is found again."""
    last: int
    digest: bytes


class Reader:
    """Calls the processor: text and pictures in, ids and pixels out."""

    def __init__(self, processor: Any, tokenizer: Any, config: Any) -> None:
        self.processor, self.tokenizer = processor, tokenizer
        marks = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
        self.mark = next((mark for mark in marks if mark is not None), None)
        self.continues = self.shared = False
        """It goes on from words without a template; what was computed of pictures is found again."""
        self._lock = Lock()

    def __call__(self, text: str, images: Sequence[Any]) -> tuple[list[int], Seen]:
        """The token ids of the prompt, its pictures expanded, and the model's arguments."""
        if self.mark is None and len(images) > 1:
            raise InvalidInput(f"this model describes one picture at a time, not {len(images)}")
        try:
            with self._lock, quiet():
                made = self._made(text, list(images))
        except Exception as error:  # whatever a processor trips over comes of the prompt
            raise InvalidInput(f"the model's processor refuses this prompt: {first_line(error)}") from error
        ids = made["input_ids"][0].tolist() if "input_ids" in made else [self.tokenizer.bos_token_id or 0]
        where = [place for place, token in enumerate(ids) if token == self.mark]
        if self.mark is not None and not where:
            raise InvalidInput("nothing in this prompt, or in the chat template, says where its pictures are")
        digest = blake2b(b"".join(b"%d %d %b" % (*one.size, one.tobytes()) for one in images), digest_size=16)
        span = (where[0], where[-1]) if where and self.shared else (-1, len(ids))
        return ids, Seen(made, *span, digest.digest())

    def _made(self, text: str, images: list[Any]) -> dict[str, Any]:
        """As `apply_chat_template` of the processor does, a template's own BOS is not doubled."""
        words = self.tokenizer
        if getattr(words, "chat_template", None):
            own = (
                {"add_special_tokens": False} if words.bos_token and text.startswith(words.bos_token) else {}
            )
            made = self.processor(text=[text], images=[images], return_tensors="pt", **own)
        else:
            made = self.processor(images=images, return_tensors="pt", **({"text": text} if text else {}))
        made = {name: one for name, one in made.items() if isinstance(one, torch.Tensor)}
        ids = made.get("input_ids")
        if self.continues and ids is not None and ids[0, 1:].tolist()[-1:] == [words.sep_token_id]:
            made = {name: one[:, :-1] if one.shape == ids.shape else one for name, one in made.items()}
        return made


def load_processor(found: Checkpoint, options: Options, tokenizer: Any) -> Any | None:
    """The processor of a checkpoint that has one; None for text models, and where Pillow is missing."""
    names = ("processor_config.json", "preprocessor_config.json")
    if not any((found.folder / name).is_file() for name in names):
        return None
    if find_spec("PIL") is None:
        log.warning("%s sees pictures, but Pillow is not installed: text alone is taken", found.name)
        return None
    folder, own = (
        str(found.folder),
        {"trust_remote_code": options.trust_remote_code, "local_files_only": True},
    )
    try:
        with quiet():
            made = transformers.AutoProcessor.from_pretrained(folder, **own)
            if not getattr(made, "image_processor", None):
                made = transformers.AutoImageProcessor.from_pretrained(folder, **own)
    except Exception as error:
        made = _images_only(found, own, tokenizer, error)
    if made is not None and not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = getattr(made, "chat_template", None)
    return made


def _images_only(found: Checkpoint, own: Mapping[str, Any], tokenizer: Any,
                 error: Exception) -> Any | None:  # fmt: skip
    """The processor without what it reads videos with, which is what often cannot be loaded (torchvision)."""
    from transformers.models.auto import processing_auto

    try:
        name = processing_auto.PROCESSOR_MAPPING_NAMES[found.config["model_type"]]
        kind: Any = processing_auto.processor_class_from_name(name)
        with quiet():
            image = transformers.AutoImageProcessor.from_pretrained(str(found.folder), **own)
            made: Any = type(name, (kind,), {"check_argument_for_proper_class": lambda *_: None})
            facts, _ = kind.get_processor_dict(str(found.folder), local_files_only=True)
            parts = {"tokenizer": tokenizer, "image_processor": image}
            return made.from_args_and_dict([parts.get(part) for part in kind.get_attributes()], facts)
    except Exception as second:
        lacking = next((one for one in (error, second) if isinstance(one, ImportError)), error)
        why = first_line(lacking)
        if isinstance(lacking, ImportError) and "torchvision" in why.lower():
            why = "it needs torchvision (run: pip install torchvision)"
        log.warning("%s takes text alone, its processor cannot be loaded: %s", found.name, why)
        return None


class Ended(Exception):
    """Nobody waits."""


class Generation(LogitsProcessor):  # type: ignore[misc,unused-ignore]
    """One call of `generate` in a thread of its own, which stops at each token to be told which."""

    def __init__(self, model: Any, inputs: dict[str, Tensor], rows: Sequence[Row], end: int) -> None:
        self._model, self._end = model, end
        self.rows: list[Row | None] = list(rows)
        self._scores: SimpleQueue[Any] = SimpleQueue()
        self._tokens: SimpleQueue[Tensor | None] = SimpleQueue()
        most = max(row.job.settings.max_tokens for row in rows) + 1
        self._thread = Thread(target=self._run, args=(inputs, most), name="memserve-hf-generate", daemon=True)
        self._thread.start()
        self._next()

    def feed(self) -> None:
        told = [row.last if row is not None else self._end for row in self.rows]
        held_back(self._model, self._moved)
        self._tokens.put(torch.tensor(told, device=self.logits.device)[:, None])
        self._next()

    def close(self) -> None:
        self._tokens.put(None)
        self._thread.join()

    def __call__(self, _ids: Tensor, scores: Tensor) -> Tensor:
        """In the thread: tell what the model thinks, and make it say what it is told."""
        self._scores.put(scores)
        tokens = self._tokens.get()
        if tokens is None:
            raise Ended
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)

    def _next(self) -> None:
        got = self._scores.get()
        self._moved = held_back(self._model)
        if isinstance(got, Exception):
            raise got
        if got is None:  # it ended at a token that only it knows as an end
            got = torch.full_like(self.logits, -torch.inf)
            got[:, self._end] = 0.0
        self.logits: Tensor = got

    def _run(self, inputs: dict[str, Tensor], most: int) -> None:
        last: Exception | None = None
        try:
            with torch.inference_mode():
                told = LogitsProcessorList([self])
                self._model.generate(**inputs, **PLAIN, max_new_tokens=most, logits_processor=told)
        except Ended:
            pass
        except Exception as error:
            last = error
        self._scores.put(last)


class Generations:
    """Rows with pictures of equal shape together, each group in a `Generation`; rows of text as before."""

    def __init__(self, model: Any, text: Stepper | None, *, device: torch.device, end: int) -> None:
        self.model, self.text, self.device, self.end = model, text, device, end
        self._running: list[Generation] = []
        self._own: list[Row] = []

    @property
    def rows(self) -> list[Row]:
        return [*(self.text.rows if self.text else ()), *self._own]

    def ahead(self, job: Job) -> int:
        return 0 if job.seen else self.text.ahead(job)  # type: ignore[union-attr]

    def prefill(self, rows: Sequence[Row]) -> Tensor:
        groups: dict[Any, list[Row]] = {}
        for row in rows:
            shapes = row.job.seen and tuple(one.shape for one in row.job.seen.inputs.values())
            groups.setdefault(shapes, []).append(row)
        made: dict[int, Tensor] = {}
        for shapes, group in groups.items():
            logits = self._begin(group) if shapes else self.text.prefill(group)  # type: ignore[union-attr]
            made.update(zip(map(id, group), logits, strict=True))
        return torch.stack([made[id(row)] for row in rows])

    def clone(self, row: Row) -> None:
        if row.job.seen:
            self._begin([row])
        else:
            self.text.clone(row)  # type: ignore[union-attr]

    def decode(self) -> Tensor:
        made = [self.text.decode()] if self.text and self.text.rows else []
        known: dict[int, Tensor] = {}
        for one in self._running:
            one.feed()
            known.update(zip(map(id, one.rows), one.logits, strict=True))
        for row in self._own:
            row.length += 1
        return torch.cat([*made, *(known[id(row)][None] for row in self._own)])

    def drop(self, row: Row) -> None:
        if row not in self._own:
            self.text.drop(row)  # type: ignore[union-attr]
            return
        self._own.remove(row)
        for one in list(self._running):
            one.rows = [None if other is row else other for other in one.rows]
            if not any(one.rows):
                self._running.remove(one)
                one.close()

    def clear(self) -> None:
        if self.text:
            self.text.clear()
        self._own.clear()
        for one in self._running:
            one.close()
        self._running.clear()

    def _begin(self, rows: list[Row]) -> Tensor:
        parts = [row.job.seen.inputs for row in rows]
        joined = {name: torch.cat([one[name] for one in parts]) for name in parts[0]}
        inputs = {name: placed(one, self.model, self.device) for name, one in joined.items()}
        self._running.append(Generation(self.model, inputs, rows, self.end))
        self._own += rows
        for row in rows:
            row.length = len(row.job.prompt)
        return self._running[-1].logits


def sees(model: Any) -> bool:
    """Is it one of transformers' classes from pictures to text?"""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    return type(model).__name__ in {*KNOWN.values(), "VisionEncoderDecoderModel"}


def sighted(prompts: Prompts, text: Stepper | None, model: Any, device: torch.device, end: int) -> Stepper:
    """Pictures beside text in the slots where that gives the model's own logits; else in its `generate`.

    A model that takes neither is refused; `prompts.reader` is taken away where its pictures cannot be read.
    """
    kind, read = type(model).__name__, prompts.reader
    example = None
    if read is not None:
        read.continues = text is not None and not prompts.chat
        mark = str(getattr(read.processor, "image_token", ""))
        tried = (_read(prompts, words) for words in ("what is there", "", mark))
        example = next(filter(None, tried), None)
    if example is None:
        if text is None:
            raise Unsupported("hf", f"the architecture {kind}", "it takes neither text nor pictures")
        if read is not None:
            log.warning("%s: its pictures cannot be read, text alone is taken", kind)
        prompts.reader = None
        return text
    if isinstance(text, Slots) and shows(text, len(example.ids), example.pictures):
        read.shared = True
        return text
    log.info("%s: rows with pictures are decoded apart", kind)
    return Generations(model, text, device=device, end=end)


def _read(prompts: Prompts, words: str) -> Prepared | None:
    """A small picture, with words or without, as the model takes it."""
    from PIL import Image

    file = BytesIO()
    Image.effect_noise((48, 64), 90).save(file, "PNG")
    url = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
    said = [{"type": "text", "text": words}] if words else []
    parts = [{"type": "image_url", "image_url": {"url": url}}, *said]
    try:
        return prompts.prepare(Request(prompt=[{"role": "user", "content": parts}], max_tokens=1))
    except MemserveError as error:
        log.info("a picture cannot be read: %s", error)
        return None
