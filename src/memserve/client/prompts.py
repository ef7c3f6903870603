"""Tells one prompt from a list of prompts, and a well-formed prompt from a malformed one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from memserve.errors import InvalidInput
from memserve.protocol import Capabilities, Prompt, Raw, Request

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
_IMAGE_PARTS = frozenset({"image", "image_url", "input_image"})


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
    _supported(capabilities.chat, "chat prompts", capabilities)
    for position, message in enumerate(prompt):
        _message(position, message, capabilities)
    return list(prompt)


def _message(position: int, message: Mapping[str, Any], capabilities: Capabilities) -> None:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise InvalidInput(f"message {position} has no role")
    if message.get("tool_calls") or role == "tool":
        _supported(capabilities.tools, "tool calls in messages", capabilities)
    elif content is None:
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
        if kind == "text":
            _text(part.get("text"), True, "text", capabilities)
        elif kind in _IMAGE_PARTS:
            _supported(capabilities.images, "images", capabilities)
        elif not isinstance(kind, str):
            raise InvalidInput(f"message {position}: a part has no type")
