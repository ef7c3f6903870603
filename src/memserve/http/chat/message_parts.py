"""Takes a chat prompt apart, for providers whose messages have another shape than OpenAI's."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from memserve import files
from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Prompt, Raw, ToolCall

_HOLE = "$"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def messages(prompt: Prompt) -> list[Any]:
    """A prompt as chat messages, a string as one user message, without what another provider signed."""
    return [_unsigned(message) for message in _listed(prompt)]


def _listed(prompt: Prompt) -> list[Any]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)  # type: ignore[arg-type]


def _unsigned(message: Mapping[str, Any]) -> Mapping[str, Any]:
    calls = message.get("tool_calls") or ()
    if not any("signature" in call for call in calls):
        return message
    bare = [{name: value for name, value in call.items() if name != "signature"} for call in calls]
    return {**message, "tool_calls": bare}


def encode(payload: Mapping[str, Any]) -> bytes:
    """A JSON body, or InvalidInput where a setting holds what JSON cannot."""
    try:
        return _ENCODER.encode(payload).encode()
    except (TypeError, ValueError) as broken:
        raise InvalidInput(f"the request cannot be written as JSON: {broken}") from None


def fill(template: Any, value: Any) -> Any:
    """A template of a dialect's data with its hole "$" filled: how this dialect spells a setting."""
    if template == _HOLE:
        return value
    if isinstance(template, dict):
        return {name: fill(inner, value) for name, inner in template.items()}
    return template


T = TypeVar("T")
_SYSTEM = ("system", "developer")
_ROLES = ("user", "assistant", "tool")
_KEYS = frozenset({"role", "content", "tool_calls", "tool_call_id", "name"})
_PART_KEYS = frozenset({"type", "text", "image_url"})
CACHE = "cache_control"
"""A mark on a part: everything up to it is worth caching."""


@dataclass(frozen=True)
class Image:
    """A picture: base64 data of a media type, or an address."""

    media_type: str | None
    data: str | None
    url: str | None = None


@dataclass(frozen=True)
class Turn:
    """One message: who speaks, what is said, which tools are called, or which call is answered."""

    role: str
    pieces: tuple[str | Image, ...]
    calls: tuple[ToolCall, ...] = ()
    answers: str | None = None
    name: str | None = None
    marks: Mapping[int, Any] = field(default_factory=dict)
    """The cache marks of pieces, by their places."""

    @property
    def text(self) -> str:
        """The words alone."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))


@dataclass(frozen=True)
class Talk:
    """A conversation and what stands above it."""

    above: tuple[Turn, ...]
    turns: tuple[Turn, ...]

    @property
    def system(self) -> str:
        """The words that stand above it."""
        return "\n\n".join(turn.text for turn in self.above)


def read(prompt: Prompt, backend: str, *, marks: bool = False) -> Talk:
    """The talk of a prompt; system messages stand at its start or are refused.

    What a backend cannot send is refused by its name: cache marks unless it takes `marks`, earlier thoughts.
    """
    if isinstance(prompt, Raw):
        raise Unsupported(backend, "raw prompts")
    system: list[Turn] = []
    known = _PART_KEYS | ({CACHE} if marks else set())
    turns: list[Turn] = []
    for position, message in enumerate(_listed(prompt)):
        _refuse(position, message, known, backend)
        turn = _turn(position, message)
        if turn.role not in _SYSTEM:
            turns.append(turn)
        elif turns:
            raise InvalidInput(f"message {position}: {backend} takes system messages at the start alone")
        else:
            system.append(turn)
    if not turns:
        raise InvalidInput(f"{backend} needs at least one message that is not a system message")
    return Talk(tuple(system), tuple(turns))


def _refuse(position: int, message: Mapping[str, Any], part_keys: Collection[str], backend: str) -> None:
    """What of a message would be lost; an empty value says nothing."""
    content = message.get("content")
    parts = [] if content is None or isinstance(content, str) else content
    lost = [name for name in message if name not in _KEYS and message[name]]
    lost += [name for part in parts for name in part if name not in part_keys and part[name]]
    if lost:
        hint = f"leave {lost[0]!r} out of the message"
        raise InvalidInput(f"message {position}: {backend} cannot be sent {lost[0]!r}", hint=hint)


def _turn(position: int, message: Mapping[str, Any]) -> Turn:
    role = message["role"]
    if role not in (*_ROLES, *_SYSTEM):
        raise InvalidInput(f"message {position}: the role {role!r} is unknown")
    calls = tuple(_call(position, call) for call in message.get("tool_calls") or ())
    pieces = tuple(_pieces(position, message.get("content")))
    content = message.get("content")
    parts = enumerate([] if content is None or isinstance(content, str) else content)
    marks = {place: part[CACHE] for place, part in parts if part.get(CACHE)}
    return Turn(role, pieces, calls, message.get("tool_call_id"), message.get("name"), marks)


def _pieces(position: int, content: Any) -> Iterator[str | Image]:
    if content is None:
        return
    if isinstance(content, str):
        yield content
        return
    for part in content:
        if part.get("type") == "text":
            yield part["text"]
        elif part.get("type") in ("image_url", "input_image"):
            yield _image(position, part.get("image_url"))
        else:
            raise InvalidInput(f"message {position}: a part of type {part.get('type')!r} is unknown")


def _image(position: int, source: Any) -> Image:
    url = source.get("url") if isinstance(source, dict) else source
    if not isinstance(url, str):
        raise InvalidInput(f"message {position}: an image has no url")
    if not url.startswith("data:"):
        return Image(None, None, url)
    head, comma, data = url.removeprefix("data:").partition(",")
    if not comma or not head.endswith(";base64"):
        raise InvalidInput(f"message {position}: an image's data is data:TYPE;base64,...")
    return Image(head.partition(";")[0], data)


def _call(position: int, call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function") or {}
    if not function.get("name"):
        raise InvalidInput(f"message {position}: a tool call names no function")
    own = str(call.get("id") or ""), function["name"], function.get("arguments") or "{}"
    return ToolCall(*own, call.get("signature"))


def signed(turn: Turn, said: Iterable[dict[str, Any]], keys: Collection[str],
           written: Callable[[ToolCall], dict[str, Any]]) -> list[dict[str, Any]]:  # fmt: skip
    """What a turn says and calls, each call behind its signed thoughts, the first before all."""
    blocks: list[dict[str, Any]] = [] if turn.calls else list(said)
    for place, call in enumerate(turn.calls):
        blocks += [*_thoughts(call, keys), *(() if place else said), written(call)]
    return blocks


def _thoughts(call: ToolCall, keys: Collection[str]) -> list[dict[str, Any]]:
    """As they came; none of another provider's."""
    try:
        found = files.parsed(call.signature or "[]")
    except ValueError:
        return []
    blocks = found if isinstance(found, list) else []
    return [block for block in blocks if isinstance(block, dict) and not block.keys().isdisjoint(keys)]


def behind_thoughts(blocks: Iterable[dict[str, Any]], is_signed: Callable[[dict[str, Any]], bool],
                    call_of: Callable[[dict[str, Any]], ToolCall | None]) -> Iterator[ToolCall]:  # fmt: skip
    """The calls of an answer's blocks, each with the signed thoughts before it."""
    thoughts: list[dict[str, Any]] = []
    for block in blocks:
        if is_signed(block):
            thoughts.append(block)
        elif (call := call_of(block)) is not None:
            yield replace(call, signature=signature(thoughts))
            thoughts = []


def signature(thoughts: Sequence[Mapping[str, Any]]) -> str | None:
    """Signed blocks of thought as a call keeps them."""
    return json.dumps(list(thoughts), ensure_ascii=False) if thoughts else None


def arguments(call: ToolCall) -> dict[str, Any]:
    """A call's arguments as an object."""
    try:
        found = files.parsed(call.arguments or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(f"the arguments of the call of {call.name!r} are not a JSON object")
    return found


@dataclass(frozen=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str | None
    parameters: Mapping[str, Any]


def tool(described: Mapping[str, Any]) -> Tool:
    """A tool as OpenAI describes it."""
    function = described.get("function")
    if not isinstance(function, dict) or not function.get("name"):
        raise InvalidInput("a tool is {'type': 'function', 'function': {'name': ..., 'parameters': ...}}")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return Tool(function["name"], function.get("description"), parameters)


def choice(wanted: str | Mapping[str, Any]) -> tuple[str, str | None]:
    """A tool_choice as ("auto" | "none" | "required" | "function", the function's name)."""
    if wanted in ("auto", "none", "required"):
        return str(wanted), None
    if wanted == "any":
        return "required", None
    function = wanted.get("function") if not isinstance(wanted, str) else None
    if not isinstance(function, dict) or not function.get("name"):
        raise InvalidInput("tool_choice is auto, none, required or {'type': 'function', 'function': {...}}")
    return "function", function["name"]


def merged(turns: Iterable[tuple[str, list[T]]]) -> list[tuple[str, list[T]]]:
    """Neighbours of one role joined: several providers want the roles to alternate."""
    joined: list[tuple[str, list[T]]] = []
    for role, blocks in turns:
        if joined and joined[-1][0] == role:
            joined[-1][1].extend(blocks)
        else:
            joined.append((role, list(blocks)))
    return joined
