"""Thoughts on vLLM and SGLang in process, on the values that the engines give; stand-ins give them."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import memserve_sglang.offline
from memserve.protocol import Request
from memserve_vllm.offline import Offline

END = 2
SAID = "hm, Paris?</think>\n\nParis"
TEMPLATE = "{% if enable_thinking is false %}<think></think>{% endif %}"


class Letters:
    """A tokenizer whose tokens are letters; its template opens the thought."""

    bos_token_id, eos_token_id, chat_template = None, END, TEMPLATE

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(chr(i) for i in ids if i != END)

    def apply_chat_template(self, messages: Any, **variables: Any) -> str:
        shut = variables.get("enable_thinking") is False
        return "".join(m["content"] for m in messages) + ("<think></think>" if shut else "<think>\n")


def ids(text: str) -> list[int]:
    return [*map(ord, text), END]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Offline:
    made, params, platforms = (
        ModuleType("vllm"),
        ModuleType("vllm.sampling_params"),
        ModuleType("vllm.platforms"),
    )
    made.SamplingParams = type("SamplingParams", (SimpleNamespace,), {"__struct_fields__": ("n",)})  # type: ignore[attr-defined]
    params.RequestOutputKind = SimpleNamespace(CUMULATIVE=0)  # type: ignore[attr-defined]
    platforms.current_platform = SimpleNamespace(device_type="cpu")  # type: ignore[attr-defined]
    for module in (made, params, platforms):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def output(prompt: list[int], end: int, last: bool) -> Any:
        one = SimpleNamespace(text=SAID[:end], token_ids=ids(SAID)[: end + last], logprobs=None,
                              finish_reason="stop" if last else None)  # fmt: skip
        return SimpleNamespace(outputs=[one], prompt_token_ids=prompt, finished=last)

    class Llm:
        def __init__(self) -> None:
            config = SimpleNamespace(
                dtype="float32", max_model_len=512, max_logprobs=20, get_vocab_size=lambda: 300,
                hf_config=SimpleNamespace(), is_multimodal_model=False,
            )  # fmt: skip
            self.asked: list[Any] = []
            self.llm_engine = self
            self.vllm_config = SimpleNamespace(model_config=config)

        def get_tokenizer(self) -> Letters:
            return Letters()

        def generate(self, asked: Any, settings: Any, **_: Any) -> list[Any]:
            self.asked += asked
            return [output(one["prompt_token_ids"], len(SAID), True) for one in asked]

        def add_request(self, name: str, asked: Any, settings: Any, **_: Any) -> None:
            self.at = 0

        def has_unfinished_requests(self) -> bool:
            return True

        def step(self) -> list[Any]:
            self.at += 1
            return [output([1], self.at, self.at == len(SAID))]

    return Offline(Llm(), "m", "0.32.0")


@pytest.fixture
def sglang(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Host:
        def __init__(self) -> None:
            about = {"version": "0.5", "dtype": "float32", "device": "cpu", "exact": True, "seed": True}
            self.facts = {**about, "vocabulary": 300, "context": 512}

        def chunk(self, end: int) -> Any:
            meta = {"finish_reason": {"type": "stop"} if end == len(SAID) else None, "prompt_tokens": 3,
                    "completion_tokens": end}  # fmt: skip
            return {"text": SAID[:end], "output_ids": ids(SAID), "meta_info": meta}

        def call(self, name: str, *, input_ids: Any, **_: Any) -> list[Any]:
            self.asked = input_ids
            return [self.chunk(len(SAID)) for _ in input_ids]

        def stream(self, **_: Any) -> Any:
            return map(self.chunk, range(1, len(SAID) + 1))

    monkeypatch.setattr(memserve_sglang.offline, "_tokenizer", lambda facts: Letters())
    return memserve_sglang.offline.Offline(Host(), "m")  # type: ignore[arg-type]


@pytest.fixture(params=["vllm", "sglang"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_the_thought_comes_apart_whole_and_streamed(engine: Any) -> None:
    (answer,) = engine.generate([Request(prompt="hi", max_tokens=64)])
    assert (answer.reasoning, answer.text, answer.finish_reason) == ("hm, Paris?", "Paris", "stop")
    pieces = list(engine.stream(Request(prompt="hi", max_tokens=64)))
    assert "".join(piece.reasoning for piece in pieces) == answer.reasoning
    assert "".join(piece.text for piece in pieces) == answer.text
    assert pieces[-1].finish_reason == "stop"


def test_the_tokens_of_thought_are_told(vllm: Offline) -> None:
    (answer,) = vllm.generate([Request(prompt="hi", max_tokens=64)])
    assert answer.usage.reasoning_tokens == SAID.index("\n")
    *_, last = vllm.stream(Request(prompt="hi", max_tokens=64))
    assert last.usage is not None
    assert last.usage.reasoning_tokens == answer.usage.reasoning_tokens


def test_switches_and_variables_reach_the_template(engine: Any) -> None:
    assert engine.capabilities.thinking == {"on", "off"}
    assert engine.capabilities.template
    requests = [Request(prompt="hi", max_tokens=64, thinking=False),
                Request(prompt="hi", max_tokens=64, template={"enable_thinking": False})]  # fmt: skip
    for answer in engine.generate(requests):
        assert (answer.reasoning, answer.text) == (None, SAID)
    asked = engine._llm.asked if hasattr(engine, "_llm") else engine._host.asked
    assert [one["prompt_token_ids"] if isinstance(one, dict) else one for one in asked] == [
        Letters().encode("hi<think></think>")
    ] * 2


def test_a_stop_string_is_meant_for_the_answer(engine: Any) -> None:
    request = Request(prompt="hi", max_tokens=64, stop=("ris",))
    (answer,) = engine.generate([request])
    assert (answer.reasoning, answer.text, answer.finish_reason) == ("hm, Paris?", "Pa", "stop")
    pieces = list(engine.stream(request))
    assert "".join(piece.reasoning for piece in pieces) == "hm, Paris?"
    assert "".join(piece.text for piece in pieces) == "Pa"
