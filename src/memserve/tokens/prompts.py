"""Prompts to token ids: the checkpoint's own template, exactly one BOS, and what to do with too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.errors import ContextOverflow, InvalidInput, ModelUnreadable, Unsupported
from memserve.protocol import DEFAULT_MAX_TOKENS, Raw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memserve.protocol import Prompt, Request
    from memserve.tokens.tokenizer import Tokenizer

_SAID = "memserve proves this template"


class Prompts:
    """Encodes for one tokenizer and one context length."""

    def __init__(self, tokenizer: Tokenizer, *, vocabulary: int, context: int | None, path: str,
                 backend: str) -> None:  # fmt: skip
        self.tokenizer, self.vocabulary, self.context, self.path = tokenizer, vocabulary, context, path
        self.backend = backend
        self.bos = _added_bos(tokenizer)
        self._parts = False
        self.chat = bool(getattr(tokenizer, "chat_template", None))

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of any kind of prompt."""
        if isinstance(prompt, Raw):
            return self.plain(prompt.text)
        if isinstance(prompt, str):
            return self._chat([{"role": "user", "content": prompt}])
        if prompt and isinstance(prompt[0], int):
            return self._ids(prompt)  # type: ignore[arg-type]
        return self._chat(prompt)  # type: ignore[arg-type]

    def plain(self, text: str) -> list[int]:
        """Text as the tokenizer takes it: its BOS where it adds one, never two."""
        ids = self.bare(text)
        return ids if not self.bos or ids[:1] == self.bos else self.bos + ids

    def bare(self, text: str) -> list[int]:
        """Text without any added token."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def fit(self, ids: list[int], request: Request) -> tuple[list[int], int]:
        """The prompt, shortened if that was asked for, and the most tokens that may answer it."""
        asked = request.max_tokens
        if not ids:
            raise InvalidInput("the prompt has no tokens")
        if self.context is None:
            return ids, asked or DEFAULT_MAX_TOKENS
        least = asked or 1
        if len(ids) + least > self.context:
            room = self.context - (asked or min(DEFAULT_MAX_TOKENS, self.context // 2))
            if request.truncate == "refuse" or room < 1:
                raise ContextOverflow(tokens=len(ids) + least, limit=self.context)
            ids = self._shorten(ids, room, request.truncate)
        return ids, asked or min(DEFAULT_MAX_TOKENS, self.context - len(ids))

    def _shorten(self, ids: list[int], room: int, policy: str) -> list[int]:
        """Left: the oldest tokens go. Middle: the beginning and the end stay. A leading BOS always stays."""
        head = self.bos if self.bos and ids[:1] == self.bos and room > 1 else []
        body, room = ids[len(head) :], room - len(head)
        first = room // 2 if policy == "middle" else 0
        return head + body[:first] + body[len(body) - (room - first) :]

    def _ids(self, ids: Sequence[int]) -> list[int]:
        wrong = next((i for i in ids if not 0 <= i < self.vocabulary), None)
        if wrong is not None:
            raise InvalidInput(f"token id {wrong} is outside the vocabulary of {self.vocabulary:,}")
        return list(ids)

    def _chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        if not self.chat:
            raise Unsupported(
                self.backend, "chat messages", "the checkpoint has no chat template",
                hint="pass memserve.Raw(text) or token ids",
            )  # fmt: skip
        plain = [{**message, "content": self._content(message.get("content"))} for message in messages]
        text = self._render(plain)
        return self.bare(text)

    def _content(self, content: Any) -> Any:
        """Text as the template reads it: a string, or parts where it loops over parts."""
        text = _flat(content)
        return [{"type": "text", "text": text}] if self._parts and text is not None else text

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise InvalidInput(f"the model's chat template refuses these messages: {error}") from error
        except Exception as error:
            raise self._broken(error) from error
        return str(text)

    def prove(self) -> None:
        """Render one plain message, so that a broken template is found before any request.

        Templates of models that also see pictures loop over a message's parts: a string goes lost in them.
        """
        if not self.chat:
            return
        if (broken := self._tried(parts=False)) and self._tried(parts=True):
            raise broken

    def _tried(self, *, parts: bool) -> ModelUnreadable | None:
        """What is wrong with the template where messages come so; None where they come through."""
        self._parts = parts
        message = {"role": "user", "content": self._content(_SAID)}
        try:
            text = self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        except Exception as error:
            return self._broken(error)
        if _SAID in text and not (parts and str(message["content"]) in text):
            return None
        return ModelUnreadable(
            f"the chat template in {self.path} leaves out what the user says",
            path=self.path, field="chat_template",
        )  # fmt: skip

    def _broken(self, error: Exception) -> ModelUnreadable:
        return ModelUnreadable(
            f"the chat template in {self.path} fails: {type(error).__name__}: {error}",
            path=self.path, field="chat_template",
        )  # fmt: skip


def _flat(content: Any) -> Any:
    """Text parts joined, as templates of text models expect a string."""
    if isinstance(content, (str, type(None))):
        return content
    return "".join(str(part.get("text", "")) for part in content)


def _added_bos(tokenizer: Tokenizer) -> list[int]:
    """The BOS that the tokenizer itself puts before plain text, if it does."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and list(tokenizer.encode("x"))[:1] == [bos] else []
