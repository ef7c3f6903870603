"""What may be scored: pairs, proven well-formed, and whole texts in rolling windows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from memserve.client import prompts
from memserve.client.prompts import plain
from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Capabilities, Prompt, Raw, Score, ScorePrompts, SupportsTokenizer

T = TypeVar("T")


def pair(given: object, capabilities: Capabilities) -> ScorePrompts:
    """A context and a continuation that is not empty."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise InvalidInput("score takes pairs of a context and a continuation")
    context, continuation = given[0], plain(given[1])
    if not isinstance(continuation, (str, Sequence)) or isinstance(continuation, bytes):
        kind = type(continuation).__name__
        raise InvalidInput(f"the continuation of a pair to score is text or token ids, not {kind}")
    if not len(continuation):
        raise InvalidInput("the continuation of a pair to score is empty")
    if isinstance(continuation, str):
        prompts.encodable(continuation, "a pair to score")
    else:
        continuation = _of_pair("continuation", lambda: ids(continuation, capabilities))
    return _context(context, capabilities), continuation


def _context(context: object, capabilities: Capabilities) -> Prompt:
    words = context.text if isinstance(context, Raw) else plain(context)
    if isinstance(words, str):
        prompts.encodable(words, "a pair to score")
        return words
    return _of_pair("context", lambda: prompts.check(words, capabilities))


def _of_pair(side: str, checked: Callable[[], T]) -> T:
    try:
        return checked()
    except Unsupported:
        raise
    except InvalidInput as error:
        raise InvalidInput(f"the {side} of a pair to score: {error}") from error


def ids(given: object, capabilities: Capabilities) -> list[int]:
    """Token ids out of any container."""
    items = plain(given)
    if not isinstance(items, Iterable) or isinstance(items, (str, bytes)):
        raise InvalidInput(f"token ids are a list of numbers, not {type(given).__name__}")
    items = list(items)
    return prompts.token_ids(items, capabilities) if items else []


def windows(engine: SupportsTokenizer, text: str, window: int) -> Iterator[tuple[list[int], list[int]]]:
    """lm-eval's rule: each token is predicted once, from at most `window` tokens before it."""
    tokens, prefix = engine.encode(text), engine.prefix_token
    if prefix is None:
        raise InvalidInput("score_text needs a tokenizer with a BOS or EOS token")
    before = [prefix, *tokens]
    for start in range(0, len(tokens), window):
        end = min(start + window, len(tokens))
        # the last window is filled up with what came before; the first begins with the prefix
        first = 0 if start == 0 else end - window
        yield before[first : start + 1], tokens[start:end]


def width(engine: SupportsTokenizer, window: int | None) -> int:
    """Tokens of a window: what was asked for, if the model can read so many."""
    most = engine.score_window
    if window is None:
        return most or 1 << 62
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise InvalidInput(f"window is a whole number of at least 1, not {window!r}")
    if most is not None and window > most:
        raise InvalidInput(f"window={window} is more than the {most:,} tokens that this model can read")
    return window


def total(scores: Sequence[Score]) -> Score:
    """The score of all parts together."""
    greedy = None if any(one.greedy is None for one in scores) else all(one.greedy for one in scores)
    return Score(sum(one.logprob for one in scores), sum(one.tokens for one in scores), greedy)
