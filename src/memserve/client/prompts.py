"""One prompt told from a list of them, well-formed from malformed ones, and what may be scored."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from memserve import pictures
from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Capabilities, Prompt, Raw, Request, Score, ScorePrompts, SupportsTokenizer

_CONVERTERS = ("to_pylist", "to_list", "tolist", "as_py")


def plain(value: object) -> object:
    """A list from a column or an array, a plain value from a scalar; all else as it is."""
    if isinstance(value, (str, list, tuple, dict)):
        return value
    if hasattr(value, "columns"):
        raise InvalidInput(f"a {type(value).__name__} is a table", hint="pass one column of it")
    for name in _CONVERTERS:
        convert = getattr(value, name, None)
        if callable(convert):
            found: object = convert()
            return found
    return value


_KINDS = "a string, Raw(text), a list of messages or a list of token ids"


def is_many(prompt: object) -> bool:
    """True for a list of prompts; False for one prompt, which may itself be a list."""
    return many(prompt) is not None


def many(prompt: object) -> Collection[object] | None:
    """The prompts of a list of prompts; None for one prompt, which may itself be a list."""
    if isinstance(prompt, (str, Raw, Request)):
        return None
    items = plain(prompt)
    if isinstance(items, str):
        return None
    if isinstance(items, Mapping):
        raise InvalidInput("a prompt is not a single message", hint="put the message into a list")
    if not isinstance(items, Iterable) or isinstance(items, (bytes, bytearray)):
        raise InvalidInput(f"a prompt is {_KINDS}, not {type(prompt).__name__}")
    if not isinstance(items, Sequence):
        return list(items)
    return None if items and (_is_id(items[0]) or isinstance(items[0], Mapping)) else items


def check(prompt: object, capabilities: Capabilities) -> Prompt:
    """The prompt, proven well-formed and of a kind that the backend takes."""
    prompt = plain(prompt)
    if isinstance(prompt, str):
        return _text(prompt, capabilities.chat, "chat prompts", capabilities)
    if isinstance(prompt, Raw):
        _text(prompt.text, capabilities.raw, "raw prompts", capabilities)
        return prompt
    if isinstance(prompt, Mapping) or not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise InvalidInput(f"a prompt is {_KINDS}, not {type(prompt).__name__}")
    if not prompt:
        raise InvalidInput("a prompt is empty: no message and no token id")
    if all(_is_id(item) for item in prompt):
        return token_ids(prompt, capabilities)
    if all(isinstance(item, Mapping) for item in prompt):
        return _messages(prompt, capabilities)
    raise InvalidInput(f"a prompt is {_KINDS}, not a mixture of {_mixture(prompt)}")


def settled(prompt: Prompt, sources: str, *, remote: bool) -> Prompt:
    """A checked prompt with its pictures at hand."""
    if isinstance(prompt, (str, Raw)) or isinstance(prompt[0], int):
        return prompt
    return [_with_pictures(place, message, sources, remote) for place, message in enumerate(prompt)]  # type: ignore[arg-type]


def _with_pictures(place: int, message: Mapping[str, Any], sources: str,
                   remote: bool) -> Mapping[str, Any]:  # fmt: skip
    content = message.get("content")
    if isinstance(content, (str, type(None))) or not any(part["type"] in pictures.KINDS for part in content):
        return message
    try:
        parts = [
            pictures.settled(part, sources, remote=remote) if part["type"] in pictures.KINDS else part
            for part in content
        ]
    except InvalidInput as error:
        raise InvalidInput(f"message {place}: {error}") from error
    return {**message, "content": parts}


def _mixture(items: Sequence[Any]) -> str:
    return " and ".join(sorted({type(item).__name__ for item in items}))


def _is_id(item: object) -> bool:
    return hasattr(item, "__index__") and not isinstance(item, bool)


def _supported(allowed: bool, setting: str, capabilities: Capabilities) -> None:
    if not allowed:
        from memserve.errors import Unsupported

        raise Unsupported(capabilities.backend, setting)


def _text(text: object, allowed: bool, setting: str, capabilities: Capabilities) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"a prompt's text is a string, not {type(text).__name__}")
    _supported(allowed, setting, capabilities)
    encodable(text)
    return text


def strings(texts: object, what: str, each: str) -> list[str]:
    """A list of strings out of any container of them."""
    items = plain(texts)
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise InvalidInput(f"{what}, not {type(texts).__name__}")
    checked = []
    for position, item in enumerate(items):
        text = plain(item)
        if not isinstance(text, str):
            raise InvalidInput(f"{each} {position} is a string, not {type(text).__name__}")
        encodable(text, f"{each} {position}")
        checked.append(text)
    return checked


def encodable(text: str, what: str = "a prompt") -> None:
    """Refuse what no tokenizer and no wire could take."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as broken:
        raise InvalidInput(f"{what} holds half a character (a lone surrogate) at {broken.start}") from None


def token_ids(prompt: Sequence[Any], capabilities: Capabilities) -> list[int]:
    """Token ids, proven to be such."""
    if not all(_is_id(item) for item in prompt):
        raise InvalidInput(f"token ids are whole numbers, not {_mixture(prompt)}")
    _supported(capabilities.token_ids, "token ids as a prompt", capabilities)
    ids = [int(item) for item in prompt]
    if min(ids) < 0:
        raise InvalidInput(f"a token id is not negative: {min(ids)}")
    return ids


def _messages(prompt: Sequence[Mapping[str, Any]], capabilities: Capabilities) -> list[Mapping[str, Any]]:
    _supported(capabilities.chat or capabilities.images, "chat prompts", capabilities)
    for position, message in enumerate(prompt):
        _message(position, message, capabilities)
    return list(prompt)


def _message(position: int, message: Mapping[str, Any], capabilities: Capabilities) -> None:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise InvalidInput(f"message {position} has no role")
    if message.get("tool_calls") or role == "tool":
        _supported(capabilities.tools, "tool calls in messages", capabilities)
    if content is None and not message.get("tool_calls"):
        raise InvalidInput(f"message {position} ({role}) has no content")
    if isinstance(content, str):
        encodable(content)
    elif content is not None:
        _parts(position, content, capabilities)


def _parts(position: int, content: object, capabilities: Capabilities) -> None:
    if not isinstance(content, Sequence) or not all(isinstance(part, Mapping) for part in content):
        raise InvalidInput(f"message {position}: content is a string or a list of parts")
    for part in content:
        kind = part.get("type")
        if not isinstance(kind, str):
            raise InvalidInput(f"message {position}: a part has no type")
        if kind == "text":
            _text(part.get("text"), True, "text", capabilities)
        elif kind in pictures.KINDS:
            _supported(capabilities.images, "images", capabilities)
        elif "audio" in kind:
            _supported(False, "audio", capabilities)


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
        encodable(continuation, "a pair to score")
    else:
        continuation = _of_pair("continuation", lambda: ids(continuation, capabilities))
    return _context(context, capabilities), continuation


def _context(context: object, capabilities: Capabilities) -> Prompt:
    words = context.text if isinstance(context, Raw) else plain(context)
    if isinstance(words, str):
        encodable(words, "a pair to score")
        return words
    # no engine scores what follows a picture
    return _of_pair("context", lambda: check(words, replace(capabilities, images=False)))


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
    return token_ids(items, capabilities) if items else []


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
