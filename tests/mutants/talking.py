"""Faults of thinking and of tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from wrapping import Altered, mutant

from memserve.conformance.test_reference import PROMPTS
from memserve.protocol import Delta, Raw

# ------------------------------------------------------------------ thinking


@mutant("thinking", alone=True)
class ThoughtsStayInTheText(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        text = f"<think>{answer.reasoning}</think>{answer.text}"
        return replace(answer, text=text, reasoning=None) if answer.reasoning else answer


@mutant("thinking")
class OffStillThinks(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if settings.get("thinking") is False:
            settings["thinking"] = 8
        return prompts


@mutant("thinking")
class OffLeavesItsTags(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        off = settings.get("thinking") is False
        return replace(answer, text=f"<think></think>{answer.text}") if off else answer


@mutant("thinking")
class BudgetsAreForgotten(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if settings.get("thinking"):
            settings["thinking"] = 60
        return prompts


@mutant("thinking")
class TheThoughtIsAll(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, text=None) if answer.reasoning else answer


@mutant("thinking")
class ThoughtsAreLost(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, reasoning=None)


@mutant("thinking")
class StreamsForgetTheThought(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        return (replace(delta, reasoning="") for delta in deltas)


@mutant("thinking")
class StreamsMixTheThoughtIn(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        return (replace(delta, text=delta.reasoning + delta.text, reasoning="") for delta in deltas)


@mutant("thinking")
class StreamsLoseAPieceOfThought(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        whole = list(deltas)
        lost = next((delta for delta in whole if delta.reasoning), None)
        return iter([delta for delta in whole if delta is not lost])


@mutant("thinking")
class StreamsThinkAfterwards(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        *whole, last = deltas
        return iter([*sorted(whole, key=lambda delta: bool(delta.reasoning)), last])


@mutant("thinking")
class StreamsDoNotCountTheThought(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        for delta in deltas:
            used = delta.usage and replace(delta.usage, reasoning_tokens=None)
            yield replace(delta, usage=used)


@mutant("thinking")
class StopStringsEndTheThought(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        stop = settings.get("stop")
        if not (answer.reasoning and isinstance(stop, str) and stop in answer.reasoning):
            return answer
        return replace(answer, reasoning=answer.reasoning.partition(stop)[0], text="")


@mutant("thinking")
class StopStringsAreForThoughtsAlone(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if settings.get("thinking"):
            settings.pop("stop", None)
        return prompts


@mutant("thinking")
class SchemasAreForgottenAfterAThought(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if settings.get("thinking"):
            settings.pop("schema", None)
        return prompts


@mutant("thinking")
class SchemasForbidTheThought(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if settings.get("schema"):
            settings.pop("thinking", None)
        return prompts


@mutant("thinking")
class ThoughtsAreFree(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, usage=replace(answer.usage, reasoning_tokens=0))


@mutant("thinking")
class TheAnswerCountsAsThought(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        made = answer.usage.completion_tokens if answer.reasoning else None
        return replace(answer, usage=replace(answer.usage, reasoning_tokens=made))


@mutant("thinking")
class NeighboursShareAThought(Altered):
    def after(self, prompts: list[Any], settings: dict[str, Any], answers: list[Any]) -> list[Any]:
        return [replace(answer, reasoning=answers[0].reasoning) for answer in answers]


@mutant("thinking")
class RawTextThinks(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if isinstance(prompts[0], Raw):
            settings.pop("thinking", None)
        return prompts


# ------------------------------------------------------------------ another model behind the name


class Elsewhere(Altered):
    """Alters what the first that is opened says to the prompts that are compared with a reference."""

    opened = 0

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.first = Elsewhere.opened == 0
        Elsewhere.opened += 1

    def after(self, prompts: list[Any], settings: dict[str, Any], answers: list[Any]) -> list[Any]:
        if not self.first or prompts != PROMPTS:
            return answers
        return [self.one(settings, answer) for answer in answers]


@mutant("reference", alone=True)
class AnotherModelAnswers(Elsewhere):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return answer if settings.get("schema") else replace(answer, text=(answer.text or "")[::-1])


@mutant("reference")
class ACoarserModelAnswers(Elsewhere):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        told = [replace(entry, logprob=entry.logprob - 0.2) for entry in answer.logprobs or ()]
        return replace(answer, logprobs=tuple(told)) if told else answer


@mutant("reference")
class TheDeploymentCallsMoreOften(Elsewhere):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if self.first and prompts == PROMPTS and settings.get("tools"):
            settings["tool_choice"] = "required"
        return prompts


@mutant("reference")
class TheDeploymentFillsSchemasOtherwise(Elsewhere):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, text='{"colour": "blue"}') if settings.get("schema") else answer


# ------------------------------------------------------------------ tools


class Calls(Altered):
    """Alters the calls of answers, whole and streamed."""

    def call(self, call: Any) -> Any:
        return call

    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, tool_calls=tuple(map(self.call, answer.tool_calls)))

    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        return (self.one(settings, delta) for delta in deltas)


class Arguments(Calls):
    """Alters the calls' arguments."""

    def made(self, arguments: dict[str, Any]) -> Any:
        return arguments

    def call(self, call: Any) -> Any:
        return replace(call, arguments=json.dumps(self.made(json.loads(call.arguments))))


class Choices(Altered):
    """Alters which tools are asked for."""

    def choose(self, settings: dict[str, Any]) -> None: ...

    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        self.choose(settings)
        return prompts


@mutant("tools", alone=True)
class CallsAreText(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        told = [call.arguments for call in answer.tool_calls]
        return replace(answer, text="".join(told), tool_calls=(), finish_reason="stop") if told else answer


@mutant("tools")
class RequiredIsAuto(Choices):
    def choose(self, settings: dict[str, Any]) -> None:
        if settings.get("tool_choice") == "required":
            settings["tool_choice"] = "auto"


@mutant("tools")
class NamedIsAnyTool(Choices):
    def choose(self, settings: dict[str, Any]) -> None:
        if isinstance(settings.get("tool_choice"), Mapping):
            settings["tool_choice"] = "required"


@mutant("tools")
class NoneMayCall(Choices):
    def choose(self, settings: dict[str, Any]) -> None:
        if settings.get("tool_choice") == "none":
            del settings["tool_choice"]


@mutant("tools")
class AutoIsNone(Choices):
    def choose(self, settings: dict[str, Any]) -> None:
        if settings.get("tools") and "tool_choice" not in settings:
            settings["tool_choice"] = "none"


@mutant("tools")
class UnknownToolsAreAnyTool(Choices):
    def choose(self, settings: dict[str, Any]) -> None:
        if "sing" in str(settings.get("tool_choice")):
            settings["tool_choice"] = "required"


@mutant("tools")
class AChoiceWithoutToolsIsDropped(Choices):
    def choose(self, settings: dict[str, Any]) -> None:
        if not settings.get("tools"):
            settings.pop("tool_choice", None)


@mutant("tools")
class OnlyTheFirstToolIsTold(Choices):
    def choose(self, settings: dict[str, Any]) -> None:
        if "tool_choice" not in settings and settings.get("tools"):
            settings["tools"] = settings["tools"][:1]


@mutant("tools")
class ArgumentsAreDropped(Arguments):
    def made(self, arguments: dict[str, Any]) -> Any:
        return {}


@mutant("tools")
class ArgumentsAreCutOff(Calls):
    def call(self, call: Any) -> Any:
        return replace(call, arguments=call.arguments[:-1])


@mutant("tools")
class ArgumentsAreJsonInAString(Arguments):
    def made(self, arguments: dict[str, Any]) -> Any:
        return json.dumps(arguments)


@mutant("tools")
class OneArgumentMore(Arguments):
    def made(self, arguments: dict[str, Any]) -> Any:
        return {**arguments, "why": ""}


@mutant("tools")
class OneArgumentLess(Arguments):
    def made(self, arguments: dict[str, Any]) -> Any:
        return dict(list(arguments.items())[:-1])


@mutant("tools")
class ValuesOutsideTheirEnum(Arguments):
    def made(self, arguments: dict[str, Any]) -> Any:
        return {**arguments, "colour": "green"}


@mutant("tools")
class BooleansAreWords(Arguments):
    def made(self, arguments: dict[str, Any]) -> Any:
        return {name: str(value) for name, value in arguments.items()}


@mutant("tools")
class NamesCarryAPrefix(Calls):
    def call(self, call: Any) -> Any:
        return replace(call, name=f"functions.{call.name}")


@mutant("tools")
class CallsHaveNoId(Calls):
    def call(self, call: Any) -> Any:
        return replace(call, id="")


@mutant("tools")
class CallsComeTwiceWithOneId(Calls):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, tool_calls=answer.tool_calls * 2)


@mutant("tools")
class TheFinishSaysStop(Calls):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, finish_reason="stop") if answer.tool_calls else answer


@mutant("tools")
class CallsStandInTheTextToo(Calls):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        told = "".join(call.name + call.arguments for call in answer.tool_calls)
        return replace(answer, text=told + (answer.text or "")) if told else answer


@mutant("tools")
class StreamsForgetCalls(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        return (replace(delta, tool_calls=()) for delta in deltas)


@mutant("tools")
class StreamsCallTwice(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        for delta in deltas:
            if delta.tool_calls:
                yield Delta(tool_calls=delta.tool_calls)
            yield delta


@mutant("tools")
class StreamsSayWhatTheyCall(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Iterator[Any]) -> Iterator[Any]:
        for delta in deltas:
            if delta.tool_calls:
                yield Delta(delta.tool_calls[0].arguments)
            yield delta


@mutant("tools")
class AwaitedCallsAreForgotten(Altered):
    async def agenerate(self, prompt: Any, **settings: Any) -> Any:
        got = await self.inner.agenerate(prompt, **settings)
        return got if isinstance(got, list) else replace(got, tool_calls=())


@mutant("tools")
class ResultsAreCutShort(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        def cut(message: Any) -> Any:
            return {**message, "content": message["content"][:4]} if message["role"] == "tool" else message

        return [list(map(cut, one)) if isinstance(one, list) and isinstance(one[0], Mapping) else one
                for one in prompts]  # fmt: skip


@mutant("tools")
class ResultsAreNotRead(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        chat = lambda one: isinstance(one, list) and isinstance(one[0], Mapping)  # noqa: E731
        return [[part for part in one if part["role"] != "tool"] if chat(one) else one for one in prompts]
