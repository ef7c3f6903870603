"""The checkpoint's own tokenizer and chat template, read without the backend under test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Oracle:
    """Says which token ids a prompt must become."""

    tokenizer: Any
    template: str | None
    special: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path | None) -> Oracle | None:
        """None where the checkpoint has no tokenizer.json or the readers are not installed."""
        if folder is None or not (folder / "tokenizer.json").exists():
            return None
        try:
            from tokenizers import Tokenizer
        except ImportError:
            return None
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = _json(folder / "tokenizer_config.json")
        jinja = folder / "chat_template.jinja"
        template = jinja.read_text(encoding="utf-8") if jinja.exists() else config.get("chat_template")
        return cls(tokenizer, template if isinstance(template, str) else None, _special(config))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Plain text, with the BOS that the tokenizer itself adds, but never two."""
        ids = list(self.tokenizer.encode(text, add_special_tokens=special).ids)
        bos = self.bos
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids back to text, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def bos(self) -> int | None:
        """The id of the first token of every text, where the checkpoint has one."""
        word = self.special.get("bos_token")
        found = self.tokenizer.token_to_id(word) if word else None
        return None if found is None else int(found)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """The chat template applied; None without a template or without jinja2."""
        if self.template is None:
            return None
        try:
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            return None
        world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        world.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        world.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
        template = world.from_string(self.template)
        return template.render(messages=list(messages), add_generation_prompt=True, **self.special)

    def takes(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the template knows all roles of a conversation; some raise for a system's."""
        from jinja2 import TemplateError

        try:
            return self.render(messages) is not None
        except TemplateError:
            return False

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """The ids that a conversation must become: the rendered template, nothing added."""
        text = self.render(messages)
        return None if text is None else self.encode(text, special=False)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    named = {key: config.get(key) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    texts = {key: v["content"] if isinstance(v, dict) else v for key, v in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}
