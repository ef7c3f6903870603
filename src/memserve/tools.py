"""Python functions as tools: their JSON schemas, and a loop that calls them until the model answers."""

from __future__ import annotations

import asyncio
import inspect
import json
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Generator as Turns
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from memserve.client.schema import OfModel, is_of
from memserve.errors import InvalidInput
from memserve.protocol import Completion, Message, ToolCall

if TYPE_CHECKING:
    from memserve.client.generation import Generator

__all__ = ["Conversation", "aloop", "describe", "loop", "message", "result"]
_UNIONS = (Union, types.UnionType)
_PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@dataclass(frozen=True)
class Conversation:
    """A conversation with its calls and their results, and the answer that ended it."""

    messages: list[Message]
    answer: Completion


def loop(generator: Generator, messages: str | Iterable[Message], functions: Sequence[Callable[..., Any]], *,
         rounds: int = 8, **settings: Any) -> Conversation:  # fmt: skip
    """Ask, call what the model asks for, hand it the results, and so on until it answers.

    What a function raises goes to the model as its result. After so many rounds no more calls are allowed.
    """
    turns, given = _turns(generator, messages, functions, rounds, settings), None
    if waits := next(
        (getattr(one, "__name__", one) for one in functions if inspect.iscoroutinefunction(one)), None
    ):
        raise InvalidInput(f"{waits} is async: memserve.tools.aloop awaits it")
    while not isinstance(turn := turns.send(given), Conversation):
        given = turn() if callable(turn) else generator.generate(turn[0], **turn[1])
    return turn


async def aloop(generator: Generator, messages: str | Iterable[Message],
                functions: Sequence[Callable[..., Any]], *,
                rounds: int = 8, **settings: Any) -> Conversation:  # fmt: skip
    """`loop`, awaited: async functions run on this event loop, others in a thread."""
    turns, given = _turns(generator, messages, functions, rounds, settings), None
    while not isinstance(turn := turns.send(given), Conversation):
        if callable(turn):
            given = await asyncio.to_thread(turn)
            given = await _settled(given) if inspect.isawaitable(given) else given
        else:
            given = await generator.agenerate(turn[0], **turn[1])
    return turn


async def _settled(value: Awaitable[object]) -> object:
    try:
        return await value
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"


def _turns(generator: Generator, messages: str | Iterable[Message], functions: Sequence[Callable[..., Any]],
           rounds: int, settings: Mapping[str, Any]) -> Turns[Any, Any, None]:  # fmt: skip
    """What is to be done next: messages and settings to answer, or a call; at last the conversation."""
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise InvalidInput(f"rounds is a whole number from 1, not {rounds!r}",
                           hint="generator.generate(messages) asks without tools")  # fmt: skip
    tools = [describe(one) for one in functions]
    known = {tool["function"]["name"]: one for tool, one in zip(tools, functions, strict=True)}
    if len(known) < len(tools):
        raise InvalidInput("two functions have one name", hint=", ".join(known))
    told: Any = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    said: list[Message] = list(told) if isinstance(told, Iterable) else []
    if not said or not all(isinstance(one, Mapping) for one in said):
        raise InvalidInput("the loop goes on from a text or a list of messages")
    able = generator.capabilities
    for left in range(rounds, -1, -1):
        how = settings if left else {**settings, "tool_choice": "none"}
        answer = yield said, {"tools": tools, **how}
        said.append(message(answer, thought=able.template or able.thoughts))
        if not answer.tool_calls:
            break
        for call in answer.tool_calls:
            given = yield partial(_called, known, call)
            said.append(result(call, given))
    yield Conversation(said, answer)


def message(answer: Completion, *, thought: bool = False) -> dict[str, Any]:
    """An answer as the message that goes on with its conversation; `thought`: with what was thought."""
    made: dict[str, Any] = {"role": "assistant", "content": answer.text or ""}
    if answer.tool_calls:
        made["tool_calls"] = [asked(call) for call in answer.tool_calls]
    return {**made, "reasoning_content": answer.reasoning} if thought and answer.reasoning else made


def asked(call: ToolCall) -> dict[str, Any]:
    """A call as a message holds it, with what its provider signed."""
    told = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return {**told, "signature": call.signature} if call.signature else told


def result(call: ToolCall, value: object) -> dict[str, Any]:
    """What a call gave, as a message: a string as it is, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    whole = text.encode("utf-8", "replace").decode()  # half a character would end the conversation
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": whole}


def describe(function: Callable[..., Any]) -> dict[str, Any]:
    """A function as a tool: its name, its docstring, and a JSON schema of its parameters from their types."""
    name = getattr(function, "__name__", "")
    if not (callable(function) and name.isidentifier()):
        raise InvalidInput(f"a tool is a function with a name, not {name or type(function).__name__}")
    hints = _hints(function)
    properties, required = {}, []
    for name, one in inspect.signature(function).parameters.items():
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise InvalidInput(
                f"{function.__name__}: a model cannot pass *{name}", hint="name each parameter"
            )
        properties[name] = _schema(hints.get(name, Any))
        if one.default is one.empty:
            required.append(name)
    schema = {
        "type": "object", "properties": properties, "required": required, "additionalProperties": False,
    }  # fmt: skip
    told = {"name": function.__name__, "description": inspect.getdoc(function) or "", "parameters": schema}
    return {"type": "function", "function": told}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InvalidInput(f"{function.__name__}: a type hint cannot be read: {error}") from error


def _called(known: Mapping[str, Callable[..., Any]], call: ToolCall) -> object:
    if call.name not in known:
        return f"error: there is no function {call.name}; there are {', '.join(known)}"
    function = known[call.name]
    try:
        hints = _hints(function)
        given = json.loads(call.arguments or "{}")
        if wrong := _wrong(describe(function)["function"]["parameters"], given, "what is passed"):
            return f"error: {wrong}"
        return function(**{name: _made(hints.get(name), value) for name, value in given.items()})
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"


def _wrong(schema: Any, value: Any, place: str) -> str | None:
    """What of a value its schema does not take; what a pydantic model takes it says itself."""
    if not schema or isinstance(schema, (OfModel, bool)):
        return None
    if "anyOf" in schema:
        told = [_wrong(one, value, place) for one in schema["anyOf"]]
        return None if None in told else told[0]
    if value not in schema.get("enum", [value]):
        return f"{place} is one of {', '.join(map(repr, schema['enum']))}, not {value!r}"
    if (kind := schema.get("type")) and not is_of(value, kind):
        return f"{place} is of type {kind}, not {json.dumps(value, ensure_ascii=False)[:80]}"
    inner, each = schema.get("properties", {}), schema.get("items")
    parts: Iterable[Any] = value.items() if isinstance(value, dict) else ()
    if each and isinstance(value, list):
        parts = [(place, one) for one in value]
    return next(filter(None, (_wrong(inner.get(name, each), one, name) for name, one in parts)), None)


def _made(kind: Any, value: Any) -> Any:
    """A value as its hint, perhaps annotated or optional, wants it, where JSON has no such type."""
    for one in get_args(kind) if get_origin(kind) in (Annotated, *_UNIONS) else (kind,):
        if one is int and isinstance(value, float):
            return int(value)
        make = one if _is_enum(one) else getattr(one, "model_validate", None)
        if make and value is not None:
            return make(value)
    return value


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type hint; what is not known may be anything."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        told = [one for one in parts[1:] if isinstance(one, str)]
        return {**_schema(parts[0]), **({"description": told[0]} if told else {})}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin is Literal:
        return {"enum": list(parts)}
    if _is_enum(kind):
        return {"enum": [one.value for one in kind]}
    if origin in _UNIONS:
        return {"anyOf": [_schema(part) for part in parts]}
    if kind in (list, tuple, set) or origin in (list, tuple, set, Sequence, Iterable):
        return {"type": "array", **({"items": _schema(parts[0])} if parts else {})}
    if kind is dict or origin in (dict, Mapping):
        return {"type": "object", **({"additionalProperties": _schema(parts[1])} if parts else {})}
    return OfModel(kind) if hasattr(kind, "model_json_schema") else {}
