"""A provider of inspect_ai, found by its entry point: inspect eval T --model memserve/M -M backend=B."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    TopLogprob,
    modelapi,
)
from inspect_ai.tool import ToolCall

from memserve.client import generator
from memserve.errors import ContextOverflow, InvalidInput, MemserveError
from memserve.protocol import Completion, Sample, TokenLogprob

_SAME = ("max_tokens", "temperature", "top_p", "top_k", "seed", "best_of", "frequency_penalty",
         "presence_penalty", "logit_bias", "effort", "reasoning_effort", "verbosity", "modalities",
         "prompt_logprobs", "extra_headers")  # fmt: skip
"""What changes an answer, under one name; what a backend does not take is refused there."""
_ENDS = {"stop": "stop", "length": "max_tokens", "content_filter": "content_filter",
         "tool_calls": "tool_calls"}  # fmt: skip
_DEFAULT = "default"
"""As a model's name: memserve's embedded default."""
_AT_ONCE = 32


@modelapi(name="memserve")
class Memserve(ModelAPI):  # type: ignore[misc]
    """Any backend; -M names it and its options."""

    def __init__(self, model_name: str, base_url: str | None = None, api_key: str | None = None,
                 config: GenerateConfig | None = None, backend: str | None = None,
                 **options: Any) -> None:  # fmt: skip
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        given = {"base_url": base_url, "api_key": api_key}
        options |= {name: value for name, value in given.items() if value is not None}
        named = None if model_name == _DEFAULT else model_name
        self.generator = generator(named, backend=backend, **options)

    async def generate(self, input: Sequence[Any], tools: Sequence[Any], tool_choice: Any,  # noqa: A002
                       config: GenerateConfig) -> ModelOutput:  # fmt: skip
        """One answer, or as many as num_choices asks for."""
        messages = [_message(message) for message in input]
        settings = _settings(config) | _tools(tools, tool_choice)
        try:
            answer = await self.generator.agenerate(messages, **settings)
        except ContextOverflow as error:
            return ModelOutput.from_content(self.model_name, str(error), "model_length", str(error))
        samples: Sequence[Completion | Sample] = answer.samples or (answer,)
        choices = [self._choice(sample) for sample in samples]
        return ModelOutput(model=self.model_name, choices=choices, usage=_usage(answer))

    def max_connections(self) -> int:
        """An engine in this process answers many at once."""
        return _AT_ONCE if self.generator.capabilities.batches else int(super().max_connections())

    def should_retry(self, ex: Exception) -> bool:
        """What may pass by itself."""
        return isinstance(ex, MemserveError) and ex.retryable

    async def aclose(self) -> None:
        """Free the engine."""
        await self.generator.aclose()

    def _choice(self, sample: Completion | Sample) -> ChatCompletionChoice:
        thought = [ContentReasoning(reasoning=sample.reasoning)] if sample.reasoning else []
        text = sample.text or sample.refusal or ""
        message = ChatMessageAssistant(
            content=[*thought, ContentText(text=text)] if thought else text, source="generate",
            model=self.model_name, tool_calls=[_call(call) for call in sample.tool_calls] or None,
        )  # fmt: skip
        ends = _ENDS.get(sample.finish_reason or "", "unknown")
        return ChatCompletionChoice(message=message, stop_reason=ends, logprobs=_logprobs(sample.logprobs))


def _settings(config: GenerateConfig) -> dict[str, Any]:
    found = {name: getattr(config, name) for name in _SAME}
    found |= {"stop": config.stop_seqs, "n": config.num_choices, "thinking": config.reasoning_tokens}
    if config.logprobs:
        found["logprobs"] = config.top_logprobs or 0
    if config.response_schema is not None:
        found["schema"] = config.response_schema.json_schema.model_dump(exclude_none=True)
    found |= config.extra_body or {}
    return {name: value for name, value in found.items() if value is not None}


def _tools(tools: Sequence[Any], choice: Any) -> dict[str, Any]:
    if not tools:
        return {}
    offered = [{"type": "function", "function": tool.model_dump(exclude_none=True, exclude={"options"})}
               for tool in tools]  # fmt: skip
    words = {"any": "required", "auto": "auto", "none": "none"}
    named = {"type": "function", "function": {"name": getattr(choice, "name", "")}}
    return {"tools": offered, "tool_choice": words.get(choice, named) if isinstance(choice, str) else named}


def _message(message: Any) -> dict[str, Any]:
    """A message of inspect's as memserve takes it; a thought of an earlier answer is not sent back."""
    found: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.role == "tool":
        found["tool_call_id"] = message.tool_call_id
    if getattr(message, "tool_calls", None):
        found["tool_calls"] = [
            {"id": call.id, "type": "function",
             "function": {"name": call.function, "arguments": json.dumps(call.arguments)}}
            for call in message.tool_calls
        ]  # fmt: skip
    return found


def _content(message: Any) -> str | list[Mapping[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    parts = [part for part in message.content if part.type != "reasoning"]
    if all(part.type == "text" for part in parts):
        return "".join(part.text for part in parts)
    return [_part(part) for part in parts]


def _part(part: Any) -> Mapping[str, Any]:
    if part.type == "text":
        return {"type": "text", "text": part.text}
    if part.type == "image":
        return {"type": "image_url", "image_url": {"url": part.image, "detail": part.detail}}
    raise InvalidInput(f"a message's part is text or an image, not {part.type}")


def _call(call: Any) -> ToolCall:
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        return ToolCall(call.id, call.name, arguments)
    return ToolCall(call.id, call.name, {}, "the arguments are not a JSON object")


def _logprobs(tokens: Sequence[TokenLogprob] | None) -> Logprobs | None:
    if tokens is None:
        return None
    return Logprobs(content=[
        Logprob(token=one.token, logprob=one.logprob,
                top_logprobs=[TopLogprob(token=name, logprob=value) for name, value in one.top])
        for one in tokens if one.logprob is not None
    ])  # fmt: skip


def _usage(answer: Completion) -> ModelUsage | None:
    used = answer.usage
    if used.prompt_tokens is None or used.completion_tokens is None:
        return None
    cached = used.cached_tokens or 0
    return ModelUsage(
        input_tokens=used.prompt_tokens - cached, output_tokens=used.completion_tokens,
        total_tokens=used.prompt_tokens + used.completion_tokens,
        input_tokens_cache_read=used.cached_tokens, reasoning_tokens=used.reasoning_tokens,
    )  # fmt: skip
