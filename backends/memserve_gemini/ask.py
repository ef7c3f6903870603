"""Writes a request in the shape of generateContent, as a model's row of models.json has it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from memserve import files
from memserve.errors import InvalidInput, Unsupported
from memserve.http.chat import fill, message_parts
from memserve.http.chat.message_parts import Image, Turn
from memserve.protocol import DEFAULT_MAX_TOKENS, Capabilities, FinishReason, Prompt, Request, ToolCall

EXTRA = "gemini_"
_MOST_SAMPLES = 8
_MOST_STOPS = 5


@dataclass(frozen=True)
class Model:
    """How one model is asked for text."""

    name: str | None
    schema: str | None
    parameters: str | None
    tools: bool
    images: bool
    logprobs: int
    thinking: Mapping[str, Any]
    """What goes into thinkingConfig; nothing for a model that does not think."""
    signature: str | None
    """What a tool call carries that another model made."""

    @property
    def path(self) -> str:
        """Its resource name."""
        return path_of(self.name or "")


@dataclass(frozen=True)
class EmbeddingModel:
    """How one model is asked for vectors."""

    name: str
    roles: str | None
    """Which table says what a role is: `roles` (task types) or `prompts`; None: it knows no roles."""
    dimensions: bool
    unit: bool
    """Its vectors are of length one, shortened or not."""
    items: int


@cache
def _table(name: str) -> dict[str, Any]:
    return dict(files.table(__file__, name))


def path_of(name: str) -> str:
    """models/NAME, unless the name says tunedModels/... or the like itself."""
    return quote(name if "/" in name else f"models/{name}", safe="/")


def _row(kind: str, name: str | None) -> dict[str, Any]:
    rows = _table("models.json")[kind]
    row = next(row for row in rows if re.search(row["pattern"], name or "", re.IGNORECASE))
    return {key: value for key, value in row.items() if key not in ("pattern", "source")}


def model(name: str | None) -> Model:
    """The row of a generating model."""
    return Model(name, **_row("models", name))


def embedding_model(name: str) -> EmbeddingModel:
    """The row of an embedding model."""
    return EmbeddingModel(name, **_row("embedders", name))


def roles(kind: str = "roles") -> dict[str, str]:
    """The task type of each role, or the form of its text (`prompts`)."""
    found: dict[str, str] = _table("models.json")[kind]
    return found


@cache
def extras() -> dict[str, tuple[str, ...]]:
    """Where in a request each extra setting stands."""
    return {EXTRA + row["name"]: tuple(row["path"]) for row in _table("models.json")["extras"]}


@cache
def finish_reasons() -> dict[str, FinishReason | None]:
    """What each finishReason means, in lower case."""
    return {row["said"].lower(): row["means"] for row in _table("models.json")["reasons"]}


def capabilities(known: Model) -> Capabilities:
    """What a model can do."""
    return Capabilities(
        backend="gemini", model=known.name, chat=True, temperature=True, max_temperature=2.0, top_p=True,
        max_tokens=True, stop=True, usage=True, top_k=True, seed=True, max_stop=_MOST_STOPS, n=True,
        max_n=_MOST_SAMPLES, logprobs=known.logprobs, schema=known.schema is not None,
        choices=known.schema is not None, tools=known.tools, images=known.images,
        thinking=frozenset(known.thinking or {"off"}), stream=True, count_tokens=True,
        extras=frozenset(extras()), cancel=True,
    )  # fmt: skip


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
    own = any(map(_signature, turn.calls))  # of several calls Gemini signs the first alone
    return parts + [_call(call, _signature(call) if own else model.signature) for call in turn.calls]


def _signature(call: ToolCall) -> str | None:
    """Gemini's own; what Claude signs is a list."""
    return None if (call.signature or "").startswith("[") else call.signature


def _response(turn: Turn, names: Mapping[str, str]) -> dict[str, Any]:
    if any(not isinstance(piece, str) for piece in turn.pieces):
        raise Unsupported("gemini", "an image as a tool's answer", "send it in a user message")
    name = turn.name or names.get(turn.answers or "")
    if not name:
        raise InvalidInput("a tool's answer names no call: give tool_call_id as in the assistant's message")
    try:
        result = files.parsed(turn.text)
    except ValueError:
        result = turn.text
    response = result if isinstance(result, dict) else {"result": result}
    return {"functionResponse": {"id": turn.answers or "", "name": name, "response": response}}


def _call(call: ToolCall, signature: str | None) -> dict[str, Any]:
    known = {"id": call.id, "name": call.name, "args": message_parts.arguments(call)}
    return {"functionCall": known, **({"thoughtSignature": signature} if signature else {})}


def _piece(piece: str | Image) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"text": piece}
    if piece.url is not None:
        return {"fileData": {"fileUri": piece.url}}
    return {"inlineData": {"mimeType": piece.media_type, "data": piece.data}}
