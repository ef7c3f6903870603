"""A GGUF file's own tokenizer and chat template, with the face that `memserve.tokens` expects."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any


class GgufTokenizer:
    """Encodes and decodes with llama.cpp; renders the template that the file carries."""

    def __init__(self, llama: Any) -> None:
        self._llama = llama
        self.chat_template = llama.metadata.get("tokenizer.chat_template")
        self.bos_token_id = _known(llama.token_bos())
        self.eos_token_id = _known(llama.token_eos())
        self._adds_bos = bool(llama._model.add_bos_token())  # a file may leave it to its kind of tokenizer
        self._template: Any = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids; special tokens that the text spells out are taken as such."""
        bos = add_special_tokens and self._adds_bos
        return list(self._llama.tokenize(text.encode("utf-8"), add_bos=bos, special=True))

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True, **_: Any) -> str:
        """Text; half characters show as the replacement character."""
        raw = self._llama.detokenize(list(tokens), special=not skip_special_tokens)
        return str(raw.decode("utf-8", "replace"))

    def apply_chat_template(self, messages: Sequence[Any], *, tokenize: bool, add_generation_prompt: bool,
                            **variables: Any) -> str:  # fmt: skip
        """The rendered template; `tokenize` is there for the shared signature and must be False."""
        words = {"bos_token": self._word(self.bos_token_id), "eos_token": self._word(self.eos_token_id)}
        if self._template is None:
            self._template = _compile(str(self.chat_template))
        return str(
            self._template.render(
                messages=list(messages),
                add_generation_prompt=add_generation_prompt,
                **{**words, **variables},
            )
        )

    def ends(self) -> frozenset[int]:
        """Every token that the file says ends an answer."""
        names = ("eos_token_id", "eot_token_id", "eom_token_id")
        told = (self._llama.metadata.get(f"tokenizer.ggml.{name}") for name in names)
        return frozenset(int(token) for token in told if token is not None)

    def _word(self, token: int | None) -> str:
        return "" if token is None else self.decode([token], skip_special_tokens=False)


def _known(token: int) -> int | None:
    return None if token < 0 else token


def _compile(template: str) -> Any:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    world.globals["raise_exception"] = _refuse
    world.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return world.from_string(template)


def _refuse(words: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(words)
