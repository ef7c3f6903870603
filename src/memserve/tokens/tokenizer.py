"""What memserve asks of a tokenizer: transformers' have it, and so have those of our small engines."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """Text to token ids and back, with the checkpoint's own chat template."""

    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int | None: ...
    def encode(self, text: str, /, *, add_special_tokens: bool = ...) -> list[int]: ...
    def decode(self, ids: Sequence[int], /, *, skip_special_tokens: bool = ...,
               clean_up_tokenization_spaces: bool = ...) -> str: ...  # fmt: skip
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], /, *, tokenize: bool,
                            add_generation_prompt: bool) -> str: ...  # fmt: skip
