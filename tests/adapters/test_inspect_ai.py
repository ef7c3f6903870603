"""inspect_ai: a provider that its entry point names, run by the harness's own evaluator."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.engine("harnesses"), pytest.mark.filterwarnings("ignore")]
OPTIONS = {"backend": "hf", "dtype": "float32"}


@pytest.fixture
def run(weights, tmp_path):
    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    def evaluate(**config):
        asked = {"What is the capital of France?": "Paris", "Say hello.": "Hello"}
        samples = [Sample(text, target=target) for text, target in asked.items()]
        task = inspect_ai.Task(dataset=samples, solver=generate(), scorer=includes())
        model = f"memserve/{weights / 'smollm2'}"
        held = {"model": model, "model_args": OPTIONS, "display": "none", "log_dir": str(tmp_path)}
        [log] = inspect_ai.eval(task, **held, **config)
        return log

    return evaluate


def test_an_evaluation_finds_it_by_name_and_agrees_with_memserve(run, weights):
    import memserve

    log = run(max_tokens=16, logprobs=True, top_logprobs=2)
    assert log.status == "success", log.error
    with memserve.generator(weights / "smollm2", **OPTIONS) as model:
        answer = model.generate("Say hello.", max_tokens=16, logprobs=2)
    output = next(sample for sample in log.samples if sample.input == "Say hello.").output
    assert (output.completion, output.stop_reason) == (answer.text, "max_tokens")
    assert (output.usage.input_tokens, output.usage.output_tokens) == (answer.usage.prompt_tokens, 16)
    said = output.choices[0].logprobs.content
    assert [one.logprob for one in said] == pytest.approx([one.logprob for one in answer.logprobs], abs=1e-4)
    assert len(said[0].top_logprobs) == 2


def test_several_choices_and_a_schema(run):
    from inspect_ai.model import ResponseSchema
    from inspect_ai.util import json_schema
    from pydantic import BaseModel

    class Town(BaseModel):
        name: str

    schema = ResponseSchema(name="town", json_schema=json_schema(Town))
    log = run(max_tokens=40, num_choices=2, temperature=0.7, seed=1, response_schema=schema)
    assert log.status == "success", log.error
    choices = log.samples[0].output.choices
    assert len(choices) == 2
    assert all(choice.message.text.lstrip().startswith("{") for choice in choices)


def test_what_the_backend_does_not_take_is_refused(run):
    log = run(max_tokens=4, frequency_penalty=0.5)
    assert log.status == "error"
    assert "frequency_penalty" in log.error.message


async def test_messages_tools_and_ends(monkeypatch):
    """Everything that passes, against a generator that writes down what it was asked."""
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        ContentImage,
        ContentReasoning,
        ContentText,
        GenerateConfig,
    )
    from inspect_ai.tool import ToolCall, ToolFunction, ToolInfo

    from memserve.adapters import inspect_ai
    from memserve.errors import ContextOverflow
    from memserve.protocol import Capabilities, Completion, Usage
    from memserve.protocol import ToolCall as Called

    class Written:
        capabilities = Capabilities(backend="written")
        said = Completion(
            None, "tool_calls", tool_calls=(Called("c2", "add", '{"a": 1}'), Called("c3", "add", "{")),
            reasoning="hm", usage=Usage(10, 4, 6, 2),
        )  # fmt: skip

        async def agenerate(self, messages, **settings):
            self.asked = messages, settings
            if len(messages) == 1:
                raise ContextOverflow(tokens=9, limit=8)
            return self.said

    held = Written()
    monkeypatch.setattr(inspect_ai, "generator", lambda *names, **options: held)
    model = inspect_ai.Memserve("default")
    thought, call = ContentReasoning(reasoning="so"), ToolCall("c1", "add", {"a": 2})
    talk = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content=[ContentText(text="See"), ContentImage(image="data:image/png;base64,AA==")]),
        ChatMessageAssistant(content=[thought, ContentText(text="yes")], tool_calls=[call]),
        ChatMessageTool(content="3", tool_call_id="c1", function="add"),
    ]
    tool = ToolInfo(name="add", description="adds")
    config = GenerateConfig(stop_seqs=["."], reasoning_tokens=9, extra_body={"min_p": 0.1})
    output = await model.generate(talk, [tool], ToolFunction("add"), config)
    messages, settings = held.asked
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[1]["content"][1]["image_url"]["url"] == "data:image/png;base64,AA=="
    assert messages[2]["content"] == "yes"
    assert messages[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 2}'}
    assert messages[3]["tool_call_id"] == "c1"
    assert (settings["stop"], settings["thinking"], settings["min_p"]) == (["."], 9, 0.1)
    assert settings["tools"][0]["function"]["name"] == "add"
    assert settings["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    good, bad = output.message.tool_calls
    assert (good.arguments, good.parse_error) == ({"a": 1}, None)
    assert bad.arguments == {}
    assert "not a JSON object" in bad.parse_error
    assert (output.stop_reason, output.message.content[0].reasoning) == ("tool_calls", "hm")
    assert (output.usage.input_tokens, output.usage.input_tokens_cache_read) == (4, 6)
    over = await model.generate(talk[:1], [], "auto", GenerateConfig())
    assert over.stop_reason == "model_length"
