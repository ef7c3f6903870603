"""A GGUF file's chat template, rendered without llama.cpp."""

from __future__ import annotations

from types import SimpleNamespace

from memserve.protocol import Request
from memserve.tokens.prompts import Prompts
from memserve_llamacpp.generating import GgufTokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}<assistant>"
    "{% if enable_thinking is false %}<think></think>{% endif %}"
)


def test_variables_reach_the_template():
    llama = SimpleNamespace(
        metadata={"tokenizer.chat_template": TEMPLATE}, token_bos=lambda: -1, token_eos=lambda: 2,
        tokenize=lambda text, **_: list(text), detokenize=lambda ids, **_: bytes(ids),
        _model=SimpleNamespace(add_bos_token=lambda: False),
    )  # fmt: skip
    prompts = Prompts(GgufTokenizer(llama), vocabulary=256, context=256, path="x.gguf", backend="llamacpp")
    assert prompts.thinking_modes == {"on", "off", "budget"}
    off = prompts.prepare(Request(prompt="hi", max_tokens=4, thinking=False))
    assert bytes(off.ids) == b"hi<assistant><think></think>"
    assert prompts.prepare(Request(prompt="hi", max_tokens=4)).thinking is not None


def test_a_template_of_its_own_for_tools():
    named = {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "tools {{ tools | length }}",
    }
    llama = SimpleNamespace(metadata=named, token_bos=lambda: -1, token_eos=lambda: -1,
                            _model=SimpleNamespace(add_bos_token=lambda: False))  # fmt: skip
    tokenizer, how = GgufTokenizer(llama), {"tokenize": False, "add_generation_prompt": True}
    assert tokenizer.apply_chat_template([], **how) == "plain"
    assert tokenizer.apply_chat_template([], tools=[1], **how) == "tools 1"
