"""Writes a request in the shape of generateContent."""

import json
from collections.abc import Mapping
from typing import Any

from memserve.errors import InvalidInput
from memserve.http.chat import fill, message_parts
from memserve.http.chat.message_parts import Image, Turn
from memserve.protocol import DEFAULT_MAX_TOKENS, Prompt, Request, ToolCall
from memserve_gemini.model import Model, extras

_ROLES = {"user": "user", "assistant": "model", "tool": "user"}
_CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}
_PLAIN = {
    "temperature": "temperature", "top_p": "topP", "top_k": "topK", "max_tokens": "maxOutputTokens",
    "seed": "seed",
}  # fmt: skip


def prompt(words: Prompt, model: Model) -> dict[str, Any]:
    """The contents and the system instruction of a prompt."""
    spoken = message_parts.read(words, "gemini")
    names = {call.id: call.name for turn in spoken.turns for call in turn.calls}
    pairs = message_parts.merged((_ROLES[turn.role], _parts(turn, names, model)) for turn in spoken.turns)
    found: dict[str, Any] = {"contents": [{"role": role, "parts": parts} for role, parts in pairs]}
    if spoken.system:
        found["systemInstruction"] = {"parts": [{"text": spoken.system}]}
    return found


def settings(request: Request, model: Model) -> dict[str, Any]:
    """Everything of a request but its prompt."""
    config: dict[str, Any] = {
        spelled: value for name, spelled in _PLAIN.items() if (value := getattr(request, name)) is not None
    }
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.n > 1:
        config["candidateCount"] = request.n
    if request.logprobs is not None:
        config |= {"responseLogprobs": True, "logprobs": request.logprobs}
    config |= _form(request, model) | _thinking(request, model)
    found = {"generationConfig": config, **_tools(request, model)}
    for name, value in request.extra.items():
        *above, last = extras()[name]
        place = found
        for step in above:
            place = place.setdefault(step, {})
        place[last] = value
    return found


def _thinking(request: Request, model: Model) -> dict[str, Any]:
    """The request's `thinking`; the provider counts thoughts among the tokens of the answer."""
    wanted = request.thinking
    if wanted is None or not model.thinking:
        return {}
    if isinstance(wanted, bool):
        return {"thinkingConfig": model.thinking["on" if wanted else "off"]}
    longest = (request.max_tokens or DEFAULT_MAX_TOKENS) + wanted
    return {"thinkingConfig": fill(model.thinking["budget"], wanted), "maxOutputTokens": longest}


def _form(request: Request, model: Model) -> dict[str, Any]:
    if request.schema is not None and model.schema is not None:
        return {"responseMimeType": "application/json", model.schema: request.schema}
    if request.choices is not None:
        schema = {"type": "STRING", "enum": list(request.choices)}
        return {"responseMimeType": "text/x.enum", "responseSchema": schema}
    return {}


def _tools(request: Request, model: Model) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if request.tools:
        declared = [_declaration(described, model) for described in request.tools]
        found["tools"] = [{"functionDeclarations": declared}]
    if request.tool_choice is not None:
        kind, name = message_parts.choice(request.tool_choice)
        only = {"allowedFunctionNames": [name]} if name else {}
        found["toolConfig"] = {"functionCallingConfig": {"mode": _CHOICES[kind], **only}}
    return found


def _declaration(described: Mapping[str, Any], model: Model) -> dict[str, Any]:
    tool = message_parts.tool(described)
    about = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **about, model.parameters or "parameters": tool.parameters}


def _parts(turn: Turn, names: Mapping[str, str], model: Model) -> list[dict[str, Any]]:
    if turn.role == "tool":
        return [_response(turn, names)]
    parts = [_piece(piece) for piece in turn.pieces if piece or not turn.calls]
    return parts + [_call(call, model) for call in turn.calls]


def _response(turn: Turn, names: Mapping[str, str]) -> dict[str, Any]:
    name = turn.name or names.get(turn.answers or "")
    if not name:
        raise InvalidInput("a tool's answer names no call: give tool_call_id as in the assistant's message")
    try:
        result = json.loads(turn.text)
    except ValueError:
        result = turn.text
    response = result if isinstance(result, dict) else {"result": result}
    return {"functionResponse": {"id": turn.answers or "", "name": name, "response": response}}


def _call(call: ToolCall, model: Model) -> dict[str, Any]:
    known = {"id": call.id, "name": call.name, "args": message_parts.arguments(call)}
    signature = {"thoughtSignature": model.signature} if model.signature else {}
    return {"functionCall": known, **signature}


def _piece(piece: str | Image) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"text": piece}
    if piece.url is not None:
        return {"fileData": {"fileUri": piece.url}}
    return {"inlineData": {"mimeType": piece.media_type, "data": piece.data}}
