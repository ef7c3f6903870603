"""Text to token ids and back, the same for every engine in this process: what local backends stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.tokens.detokenizer import Detokenizer as Detokenizer
    from memserve.tokens.detokenizer import Tokenizer as Tokenizer
    from memserve.tokens.prompts import Prepared as Prepared
    from memserve.tokens.prompts import Prompts as Prompts
    from memserve.tokens.prompts import ScorePair as ScorePair
    from memserve.tokens.prompts import Tokenizing as Tokenizing
    from memserve.tokens.prompts import tokenize_pair as tokenize_pair

_HOMES = {
    "Detokenizer": "detokenizer", "Prepared": "prompts", "Prompts": "prompts", "ScorePair": "prompts",
    "tokenize_pair": "prompts", "Tokenizer": "detokenizer", "Tokenizing": "prompts",
}  # fmt: skip
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
