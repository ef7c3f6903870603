"""The settings of one call: proven well-formed, checked against the capabilities, defaults filled in."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from operator import index
from typing import Any

from memserve.client import schema
from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_TEMPERATURE,
    DEFAULT_TOP_P,
    Capabilities,
    Raw,
    Request,
)

_DEFAULTS = {"temperature": DEFAULT_TEMPERATURE, "top_p": DEFAULT_TOP_P, "max_tokens": DEFAULT_MAX_TOKENS}
_POLICIES = ("refuse", "left", "middle")
_SEED_RANGE = 2**63
MOST_SAMPLES = 65_536
"""Of one request: more is a slip of the pen that would keep an engine busy for days."""


def _whole(least: int, most: int | None = None) -> Callable[[str, object], int]:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise InvalidInput(f"{name} is a whole number, not {value!r}")
        if index(value) < least:
            raise InvalidInput(f"{name} is at least {least}, not {value!r}")
        if most is not None and index(value) > most:
            raise InvalidInput(f"{name} is at most {most:,}, not {value!r}")
        return index(value)

    return check


def _number(low: float, high: float, *, open_low: bool = False) -> Callable[[str, object], float]:
    def check(name: str, value: object) -> float:
        if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
            raise InvalidInput(f"{name} is a number, not {value!r}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not (low <= number <= high and math.isfinite(number)) or (open_low and number == low):
            start, end = ("above" if open_low else "from"), (f" to {high:g}" if math.isfinite(high) else "")
            raise InvalidInput(f"{name} is a number {start} {low:g}{end}, not {value!r}")
        return number

    return check


def _seed(name: str, value: object) -> int:
    number = _whole(-_SEED_RANGE)(name, value)
    if number >= _SEED_RANGE:
        raise InvalidInput(f"{name} fits into 64 bits, unlike {value!r}")
    return number


def _words(name: str, value: object) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise InvalidInput(f"{name} is a string or a list of strings, not {value!r}")
    if not all(words):
        raise InvalidInput(f"{name} holds an empty string")
    return tuple(words)


def _choices(name: str, value: object) -> tuple[str, ...]:
    if (
        isinstance(value, str)
        or not isinstance(value, Sequence)
        or not value
        or not isinstance(value[0], str)
    ):
        raise InvalidInput(f"{name} is a list of at least one string, not {value!r}")
    return _words(name, value)


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} is a mapping, not {type(value).__name__}")
    return value


def _variables(name: str, value: object) -> Mapping[str, Any]:
    """Whatever a chat template may know, but not what its tokenizer is called with."""
    found = _mapping(name, value)
    for word in ("messages", "conversation", "tokenize", "return_tensors", "return_dict"):
        if word in found:
            raise InvalidInput(f"{name}={{{word!r}: ...}} is no variable of a chat template")
    return found


def _schema(name: str, value: object) -> Mapping[str, Any]:
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        value = schema.OfModel(value)
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} is a mapping or a pydantic model class, not {type(value).__name__}")
    checked = value
    schema.check(checked, name)
    return checked


def _regex(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{name} is a regular expression, not {value!r}")
    return value


def _tools(name: str, value: object) -> tuple[Mapping[str, Any], ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise InvalidInput(f"{name} is a list of mappings, not {type(value).__name__}")
    return tuple(_tool(f"{name}[{i}]", tool) for i, tool in enumerate(value))


def _tool(name: str, value: object) -> Mapping[str, Any]:
    """A tool; one of the type function has a name, and parameters that can be meant."""
    if callable(value):
        raise InvalidInput(f"{name} is a mapping, not a {type(value).__name__}",
                           hint="memserve.tools.describe makes one of a function")  # fmt: skip
    tool = _mapping(name, value)
    function = _mapping(f"{name}.function", {} if tool.get("function") is None else tool["function"])
    if tool.get("type") == "function":
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise InvalidInput(f"{name}.function has no name")
        if function.get("parameters") is not None:
            schema.check(function["parameters"], f"{name}.function.parameters")
    return tool


def _tool_choice(name: str, value: object) -> str | Mapping[str, Any]:
    if not isinstance(value, str):
        function = _mapping(name, value).get("function")
        _mapping(f"the function of {name}", {} if function is None else function)
    return value  # type: ignore[return-value]


def _policy(name: str, value: object) -> str:
    if value not in _POLICIES:
        raise InvalidInput(f"{name} is one of {', '.join(_POLICIES)}, not {value!r}")
    return str(value)


def _thinking(name: str, value: object) -> bool | int:
    if isinstance(value, bool):
        return value
    if not hasattr(value, "__index__"):
        raise InvalidInput(f"{name} is True, False or a whole number of tokens, not {value!r}")
    tokens = _whole(0)(name, value)
    return tokens or False


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "max_tokens": _whole(1), "temperature": _number(0, math.inf), "top_p": _number(0, 1, open_low=True),
    "top_k": _whole(1), "min_p": _number(0, 1), "seed": _seed, "stop": _words, "n": _whole(1, MOST_SAMPLES),
    "logprobs": _whole(0), "schema": _schema, "regex": _regex, "choices": _choices, "tools": _tools,
    "tool_choice": _tool_choice, "truncate": _policy, "thinking": _thinking, "reask": _whole(0, 16),
    "template": _variables, "extra": _mapping,
}  # fmt: skip
_PLAIN = (
    "temperature", "top_p", "max_tokens", "top_k", "min_p", "seed", "stop", "schema", "regex", "choices",
)  # fmt: skip
_BLANK = {f.name: f.default for f in fields(Request) if f.name not in ("prompt", "id", "extra", "template")}


def check(name: str, value: object) -> Any:
    """A setting as a `Request` holds it, or InvalidInput where no backend could take it."""
    return _CHECKS[name](name, value)


def resolve(given: Mapping[str, object], capabilities: Capabilities, *,
            fill_max_tokens: bool = True) -> dict[str, Any]:  # fmt: skip
    """What goes into a `Request`, or InvalidInput (malformed) or Unsupported (refused) before any work."""
    asked = {name: value for name, value in given.items() if value is not None}
    extra = dict(_mapping("extra", asked.pop("extra", {})))
    extra.update({name: asked.pop(name) for name in [n for n in asked if n not in _CHECKS]})
    values = {name: check(name, value) for name, value in asked.items()}
    _refuse(values, capabilities)
    _refuse_extra(extra, capabilities)
    for name, default in _DEFAULTS.items():
        if name not in values and getattr(capabilities, name) and (fill_max_tokens or name != "max_tokens"):
            values[name] = default
    if extra:
        values["extra"] = extra
    return values


def of_request(request: Request) -> dict[str, Any]:
    """The settings that a caller's own Request carries beyond the blank ones."""
    own = {name: getattr(request, name) for name in _BLANK}
    own = {name: value for name, value in own.items() if value != _BLANK[name]}
    mappings = {"extra": request.extra, "template": request.template}
    return {**own, **{name: value for name, value in mappings.items() if value}}


def templated(request: Request) -> Request:
    """The request, unless it asks the chat template for something and its prompt has none."""
    asked = {"thinking": request.thinking is not None, "template": request.template, "reask": request.reask}
    name = next((name for name, given in asked.items() if given), None)
    if name is None:
        return request
    prompt = request.prompt
    if isinstance(prompt, Raw) or (not isinstance(prompt, str) and isinstance(prompt[0], int)):
        raise InvalidInput(f"{name} is for chat prompts: raw text and token ids have no template")
    return request


def _refuse(values: Mapping[str, Any], capabilities: Capabilities) -> None:
    for name in _PLAIN:
        if values.get(name) not in (None, ()) and not getattr(capabilities, name):
            raise Unsupported(capabilities.backend, name, _whose(capabilities))
    _refuse_counts(values, capabilities)
    if (values.get("tools") or "tool_choice" in values) and not capabilities.tools:
        raise Unsupported(capabilities.backend, "tools", _whose(capabilities))
    _refuse_choice(values.get("tool_choice"), values.get("tools") or ())
    if values.get("truncate", "refuse") != "refuse" and not capabilities.truncate:
        raise Unsupported(capabilities.backend, f"truncate={values['truncate']!r}", _whose(capabilities))
    _refuse_thinking(values, capabilities)
    if values.get("reask") and ("schema" not in values or values.get("n", 1) > 1):
        raise InvalidInput("reask is for one answer under a schema")
    together = [name for name in ("schema", "regex", "choices") if name in values]
    if len(together) > 1:
        raise InvalidInput(f"{' and '.join(together)} exclude each other")


def _refuse_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> None:
    if choice is not None and not tools:
        raise InvalidInput("tool_choice is given without tools")
    name = (choice.get("function") or choice).get("name") if isinstance(choice, Mapping) else None
    known = [(tool.get("function") or tool).get("name") for tool in tools]
    if name is not None and name not in known:
        raise InvalidInput(f"tool_choice names {name!r}: no such tool ({', '.join(map(str, known))})")


def _refuse_thinking(values: Mapping[str, Any], capabilities: Capabilities) -> None:
    if values.get("template") and not capabilities.template:
        raise Unsupported(capabilities.backend, "template", _whose(capabilities))
    wanted = values.get("thinking")
    if wanted is None:
        return
    mode = ("on" if wanted else "off") if isinstance(wanted, bool) else "budget"
    if mode not in capabilities.thinking:
        known = ", ".join(sorted(capabilities.thinking)) or "none"
        raise Unsupported(capabilities.backend, f"thinking={wanted!r}", f"it can be asked for: {known}")


def _refuse_counts(values: Mapping[str, Any], capabilities: Capabilities) -> None:
    if values.get("n", 1) > 1 and not capabilities.n:
        raise Unsupported(capabilities.backend, "n", "more than one sample")
    if capabilities.max_n is not None and values.get("n", 1) > capabilities.max_n:
        raise Unsupported(capabilities.backend, "n", f"at most {capabilities.max_n} samples")
    hottest = capabilities.max_temperature
    if hottest is not None and values.get("temperature", 0) > hottest:
        raise Unsupported(capabilities.backend, "temperature", f"at most {hottest:g}")
    asked = values.get("logprobs")
    if asked is not None and not capabilities.logprobs:
        raise Unsupported(capabilities.backend, "logprobs", _whose(capabilities))
    if asked is not None and asked > capabilities.logprobs:
        raise Unsupported(capabilities.backend, "logprobs", f"at most {capabilities.logprobs} per token")
    most = capabilities.max_stop
    if most is not None and len(values.get("stop", ())) > most:
        raise Unsupported(capabilities.backend, "stop", f"at most {most} stop strings")


def _refuse_extra(extra: Mapping[str, Any], capabilities: Capabilities) -> None:
    for name in extra:
        if name in capabilities.extras:
            continue
        near = get_close_matches(name, [*_CHECKS, *capabilities.extras], n=1)
        raise Unsupported(
            capabilities.backend, name, f"did you mean {near[0]}?" if near else "no such setting"
        )


def _whose(capabilities: Capabilities) -> str:
    return f"model {capabilities.model!r} does not take it" if capabilities.model else ""
