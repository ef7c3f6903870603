"""What a body asks for, in the protocol's own settings. A field that nothing takes is refused by its name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from memserve import files
from memserve.cli import nearest
from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Capabilities, Raw, Settings

_SETTINGS = frozenset(Settings.__annotations__) - {"extra", "logprobs"}
SPELLED = {
    "max_tokens": ("max_completion_tokens", "max_output_tokens"), "template": ("chat_template_kwargs",),
    "schema": ("response_format", "text"), "thinking": ("reasoning_effort", "reasoning"),
    "logprobs": ("top_logprobs",), "prompt": ("messages", "input"),
}  # fmt: skip
"""What bodies call a setting of the protocol's besides its own name."""
_SPELLED = {"max_completion_tokens": "max_tokens", "chat_template_kwargs": "template"}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_NOTED = frozenset({
    "model", "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "store",
})  # fmt: skip
"""They change no answer."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "best_of": (1,),
    "modalities": (["text"],), "include": ([],), "verbosity": ("medium",),
    "service_tier": ("auto", "default"), "truncation": ("disabled",),
}  # fmt: skip
"""Values that ask for what happens anyway."""


@dataclass(frozen=True)
class Asked:
    """Prompts with their settings, and how the answer is to be told."""

    prompts: list[Any]
    settings: dict[str, Any]
    stream: bool
    usage: bool
    """A stream's last event tells the tokens."""
    token_ids: bool
    one_call: bool
    """Of several tool calls only the first is wanted."""
    echo: bool = False
    """The prompt stands before its answer."""


def chat(body: Mapping[str, Any], known: Capabilities) -> Asked:
    """Of /v1/chat/completions."""
    fields = {name: value for name, value in body.items() if value is not None}
    most, wanted = fields.pop("top_logprobs", 0), flag(fields, "logprobs")
    if most and not wanted:
        raise InvalidInput("top_logprobs goes with logprobs: true")
    logprobs = most if wanted else None
    _format(fields)
    return _asked([_talk(fields.pop("messages", None))], fields, known, logprobs)


def text(body: Mapping[str, Any], known: Capabilities) -> Asked:
    """Of /v1/completions: plain text, or token ids, and lists of either."""
    fields = {name: value for name, value in body.items() if value is not None}
    prompt = fields.pop("prompt", None)
    several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    prompts = [Raw(one) if isinstance(one, str) else one for one in (prompt if several else [prompt])]
    if not all(isinstance(one, Raw) or (isinstance(one, list) and one and _are_ids(one)) for one in prompts):
        raise InvalidInput("prompt is a text, a list of token ids, or a list of either")
    _format(fields)
    echo, logprobs = flag(fields, "echo"), fields.pop("logprobs", None)
    if echo and not (known.score and known.tokenizer):
        raise Unsupported(known.backend, "echo", "it tells no log-probabilities of a prompt")
    if echo and logprobs not in (None, 0, 1):
        raise InvalidInput(
            f"logprobs is 0 or 1 with echo: the likeliest token alone is told, not {logprobs!r}"
        )
    return replace(_asked(prompts, fields, known, logprobs), echo=echo)


def _are_ids(prompt: list[Any]) -> bool:
    return all(isinstance(one, int) for one in prompt)


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """An object of the body."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} is an object, not {type(value).__name__}")
    return value


def body_of(words: bytes) -> dict[str, Any]:
    """The object that a caller posted."""
    try:
        found = files.parsed(words, constant=_no_number)
    except ValueError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from None
    return dict(mapping(found, "the body"))


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def only(body: dict[str, Any], *names: str) -> None:
    """Refuse what a route does not know."""
    for name in body:
        if name not in names:
            raise InvalidInput(f"unknown field {name!r}", hint=f"known: {', '.join(names)}")


def flag(fields: dict[str, Any], name: str, default: bool = False) -> bool:
    """A switch of the body, taken out of it."""
    value = fields.pop(name, default)
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is true or false, not {value!r}")
    return value


def _asked(prompts: list[Any], fields: dict[str, Any], known: Capabilities, logprobs: Any) -> Asked:
    options = mapping(fields.pop("stream_options", {}), "stream_options")
    stream, ids = flag(fields, "stream"), flag(fields, "return_token_ids")
    own = {name.partition("_")[2]: name for name in known.extras}
    one_call = "parallel_tool_calls" not in own and not flag(fields, "parallel_tool_calls", True)
    settings = _settings(fields, known, own)
    if logprobs is not None:
        settings["logprobs"] = logprobs
    if not settings.get("tools", True):
        del settings["tools"]
    return Asked(prompts, settings, stream, options.get("include_usage") is True, ids, one_call)


def _settings(fields: Mapping[str, Any], known: Capabilities, own: Mapping[str, str]) -> dict[str, Any]:
    """A backend's own settings go to it as they are; the rest are the protocol's."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name in own:
            found[own[name]] = value
        elif name in _SETTINGS or name in _SPELLED:
            setting = _SPELLED.get(name, name)
            if found.setdefault(setting, value) != value:
                raise InvalidInput(f"{name} and {setting} are one setting with two values")
        elif name == "reasoning_effort":
            if value not in _EFFORTS:
                raise InvalidInput(f"reasoning_effort is one of {', '.join(_EFFORTS)}, not {value!r}")
            found.setdefault("thinking", value != "none")
        elif name not in _NOTED and value not in _NEUTRAL.get(name, ()):
            near = nearest(name, [*_SETTINGS, *_SPELLED, *own])
            why = f"did you mean {near[0]}?" if near else "leave the field out" * (name in _NEUTRAL)
            raise Unsupported(known.backend, name, why or "no such field")
    return found


def _format(fields: dict[str, Any]) -> None:
    """`response_format` becomes the setting `schema`."""
    wanted = mapping(fields.pop("response_format", {"type": "text"}), "response_format")
    kind = wanted.get("type")
    if kind == "json_object":
        fields["schema"] = {"type": "object"}
    elif kind == "json_schema":
        named = mapping(wanted.get("json_schema", wanted), "response_format.json_schema")
        fields["schema"] = mapping(named.get("schema", {}), "response_format.json_schema.schema")
    elif kind != "text":
        raise InvalidInput(f"response_format.type is text, json_object or json_schema, not {kind!r}")


def _talk(messages: Any) -> list[Any]:
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("messages is a list of at least one message")
    return [_message(position, message) for position, message in enumerate(messages)]


def _message(position: int, message: Any) -> Any:
    found = dict(mapping(message, f"messages[{position}]"))
    if found.get("role") == "developer":  # the newer word for the same: templates know the older one
        found["role"] = "system"
    if isinstance(found.get("content"), list):
        for part in found["content"]:
            kind = mapping(part, f"messages[{position}].content[]").get("type")
            if kind not in _PARTS:
                raise InvalidInput(
                    f"messages[{position}]: a part is one of {', '.join(_PARTS)}, not {kind!r}"
                )
            _refuse_paths(part)
    return {name: value for name, value in found.items() if value is not None or name == "content"}


def _refuse_paths(part: Any) -> None:
    """A caller elsewhere may not have this machine's files and neighbours read."""
    image = part.get("image_url")
    address = image.get("url") if isinstance(image, dict) else image
    if address is not None and not str(address).startswith(("data:", "https://")):
        raise InvalidInput("an image is a data: or an https:// address")


_PARTS = ("text", "image_url", "refusal", "input_audio")
_LOGPROBS, _THOUGHTS = "message.output_text.logprobs", "reasoning.encrypted_content"
"""What `include` may ask for; thoughts come as they are, and never encrypted."""
_TEXTS = ("input_text", "output_text", "text", "refusal")


def responses(body: Mapping[str, Any], known: Capabilities) -> Asked:
    """The body as the chat route would have it. Nothing is kept here, so earlier answers must come along."""
    fields = {name: value for name, value in body.items() if value is not None}
    above = fields.pop("instructions", None)
    talk = [{"role": "system", "content": above}] if above else []
    given = fields.pop("input", None)
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise InvalidInput("input is a text or a list of items")
    for position, item in enumerate(items):
        _item(talk, dict(mapping(item, f"input[{position}]")))
    include = fields.pop("include", [])
    if not isinstance(include, list):
        raise InvalidInput(f"include is a list, not {type(include).__name__}")
    if _LOGPROBS in include:
        fields["logprobs"] = True
    if left := [one for one in include if one not in (_LOGPROBS, _THOUGHTS)]:
        fields["include"] = left
    if "max_output_tokens" in fields:
        fields["max_tokens"] = fields.pop("max_output_tokens")
    if form := mapping(fields.pop("text", {}), "text").get("format"):
        fields["response_format"] = form
    if effort := mapping(fields.pop("reasoning", {}), "reasoning").get("effort"):
        fields["reasoning_effort"] = effort
    if tools := fields.pop("tools", None):
        if not isinstance(tools, list):
            raise InvalidInput(f"tools is a list, not {type(tools).__name__}")
        fields["tools"] = [_tool(mapping(tool, "a tool")) for tool in tools]
    choice = fields.get("tool_choice")
    if isinstance(choice, dict):
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    return chat({**fields, "messages": talk}, known)


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise InvalidInput(f"a tool is of the type function, not {tool.get('type')!r}")
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type" and v is not None}}


def _item(talk: list[dict[str, Any]], item: dict[str, Any]) -> None:
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        if not (talk and talk[-1].get("tool_calls")):
            talk.append({"role": "assistant", "content": None, "tool_calls": []})
        talk[-1]["tool_calls"].append(call)
    elif kind == "function_call_output":
        talk.append(
            {"role": "tool", "tool_call_id": item.get("call_id"), "content": _parts(item.get("output"))}
        )
    elif kind == "message":
        talk.append({"role": item.get("role"), "content": _parts(item.get("content"))})
    elif kind != "reasoning":  # an earlier thought, which models do not read again
        raise InvalidInput(f"an item is a message, a function_call, or its output, not {kind!r}")


def _parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    parts = [_part(mapping(part, "a part")) for part in content]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    plain = len(texts) == len(parts) and all(isinstance(text, str) for text in texts)
    return "".join(texts) if plain else parts


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text", part.get("refusal"))}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    raise InvalidInput(f"a part is an input_text or an input_image, not {kind!r}")
