"""The embedded model's tokenizer, spoken to as transformers' are, without transformers."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from memserve.extras import need


class EmbeddedTokenizer:
    """tokenizer.json with its chat template."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.context = int(about["context"])
        self.bos_token_id = int(about["bos"])
        self.eos_token_id = int(about["eos"])
        self.chat_template = str(about["chat_template"])
        self._tokenizer = need("embedded", "tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids; this checkpoint adds no BOS of its own."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False, **_: Any) -> str:
        """Text of token ids."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> str:
        """The conversation as the model was taught to read it."""
        return str(self._template.render(messages=messages, **settings))

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def _template(self) -> Any:
        sandbox = need("embedded", "jinja2.sandbox", "jinja2")
        return sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
            self.chat_template
        )
