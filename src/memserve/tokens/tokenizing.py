"""What every engine in this process gets from its tokenizer: counts, ids, text, pairs to score."""

from collections.abc import Sequence

from memserve.protocol import Prompt, ScorePrompts
from memserve.tokens.prompts import Prompts
from memserve.tokens.score_pair import ScorePair, tokenize_pair


class Tokenizing:
    """A base for engines that keep their `Prompts` as `_prompts`."""

    _prompts: Prompts
    _unscored = 0
    """Positions of the context that the engine cannot use while it scores."""

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, template and BOS included."""
        return len(self._prompts.encode(prompt))

    def encode(self, text: str) -> list[int]:
        """The text's own token ids, none added; special tokens that it spells out are taken as such."""
        return self._prompts.bare(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        known = self._prompts.known(ids)
        tokenizer = self._prompts.tokenizer
        return str(tokenizer.decode(known, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @property
    def prefix_token(self) -> int | None:
        """What a text's first token is predicted from: BOS, or else EOS."""
        return self._prompts.opening

    @property
    def score_window(self) -> int | None:
        """The most tokens that can stand before one that is scored; None: no limit."""
        context = self._prompts.context
        return None if context is None else context - self._unscored

    def _pairs(self, pairs: Sequence[ScorePrompts]) -> list[ScorePair]:
        return [tokenize_pair(self._prompts, *pair, most=self.score_window) for pair in pairs]
