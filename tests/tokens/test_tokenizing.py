"""The windows that a text is scored in, and where a context ends."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memserve.client import prompts
from memserve.errors import ContextOverflow, InvalidInput, ModelUnreadable
from memserve.protocol import Request
from memserve.tokens.prompts import Prompts, tokenize_pair
from memserve.tokens.template import compiled, limited


class Letters:
    """A tokenizer whose tokens are letters, with a template."""

    bos_token_id, eos_token_id, chat_template = 1, 2, "yes"

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [1] * add_special_tokens + [ord(letter) for letter in text]

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(map(chr, ids))

    def apply_chat_template(self, messages: Any, **_: Any) -> str:
        return "".join(f"[{m['role']}]{m['content']}" for m in messages) + "[assistant]"


PROMPTS = Prompts(Letters(), vocabulary=300, context=64, path="-", backend="toy")


class Tokens:
    prefix_token, score_window = 0, None

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Any) -> str:
        return ""


def rolling(tokens: list[int], prefix: int, width: int) -> list[tuple[list[int], list[int]]]:
    """The rule in other words: a window holds `width` inputs, and predicts what no window did before."""
    inputs, made, done = [prefix, *tokens[:-1]], [], 0
    while done < len(tokens):
        end = min(done + width, len(tokens))
        window = inputs[max(0, end - width) : end] if done else inputs[:end]
        made.append((window[: len(window) - (end - done) + 1], tokens[done:end]))
        done = end
    return made


@given(st.text("abcdef", max_size=40), st.integers(1, 12))
def test_each_token_is_predicted_once_from_as_many_as_fit(text: str, width: int) -> None:
    made = list(prompts.windows(Tokens(), text, width))
    assert made == rolling(Tokens().encode(text), 0, width)
    assert [token for _, after in made for token in after] == Tokens().encode(text)
    assert all(len(before) + len(after) <= width + 1 for before, after in made)


def test_what_stands_before_stays_as_it_is() -> None:
    chat = [{"role": "user", "content": "hi"}]
    pair = tokenize_pair(PROMPTS, chat, " Paris", most=64)
    assert list(pair.tokens[: pair.start]) == PROMPTS.encode(chat)
    assert Letters().decode(pair.tokens[pair.start :]) == " Paris"
    ids = tokenize_pair(PROMPTS, [5, 6], [7], most=64)
    assert (ids.tokens, ids.start) == ((5, 6, 7), 2)
    assert tokenize_pair(PROMPTS, "ab ", [7], most=64).tokens == (1, 97, 98, 32, 7)
    assert tokenize_pair(PROMPTS, "ab ", "c", most=64).count == 2


def test_the_last_token_need_not_be_read() -> None:
    assert len(tokenize_pair(PROMPTS, [5] * 64, [6], most=64).read) == 64
    with pytest.raises(ContextOverflow):
        tokenize_pair(PROMPTS, [5] * 64, [6, 7], most=64)
    with pytest.raises(InvalidInput, match="vocabulary"):
        tokenize_pair(PROMPTS, [5], [300], most=64)


@pytest.mark.parametrize("window", [0, -1, True, 2.5, 65])
def test_a_window_is_what_the_model_can_read(window: Any) -> None:
    class Short(Tokens):
        score_window = 64

    with pytest.raises(InvalidInput, match="window"):
        prompts.width(Short(), window)


# The error may be lost in a callback of the garbage collector, and comes again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("template", [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ messages[0].content }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ 'a' * 99999999999 }}", "{{ 9 ** 999999999 }}",
])  # fmt: skip
def test_a_template_that_never_ends_or_fills_memory_is_refused(template, monkeypatch):
    monkeypatch.setattr("memserve.tokens.template.SECONDS", 0.2)

    class Words:
        bos_token_id = eos_token_id = None
        chat_template = template

        def encode(self, text, **_):
            return list(text.encode())

        def apply_chat_template(self, messages, *, tokenize, **variables):
            return compiled(template).render(messages=messages, **variables)

    prompts = Prompts(Words(), vocabulary=256, context=100, path="model", backend="x")
    with pytest.raises(ModelUnreadable, match="the chat template in model fails"):
        prompts.prove()


def test_where_templates_are_named_the_one_for_tools_is_read():
    told = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    tools = """{{ tools }}{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endfor %}"""

    class Words:  # as transformers' tokenizers of Hermes 3 and Command R
        bos_token_id = eos_token_id = None
        chat_template = MappingProxyType({"default": told, "tool_use": tools})

        def encode(self, text, **_):
            return list(text.encode())

        def decode(self, ids, **_):
            return bytes(ids).decode()

        def apply_chat_template(self, messages, *, tokenize, tools=None, **variables):
            own = self.chat_template["tool_use" if tools else "default"]
            return compiled(own).render(messages=messages, tools=tools, **variables)

    prompts = Prompts(Words(), vocabulary=256, context=None, path="model", backend="x")
    prompts.prove()
    assert prompts.family.name == "hermes"
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    asked = Request(prompt=[{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}],
                    tools=({"type": "function", "function": {"name": "f"}},))  # fmt: skip
    assert '{"name": "f", "arguments": {"x": 1}}' in bytes(prompts.prepare(asked).ids).decode()
    assert bytes(prompts.prepare(Request(prompt="Hi")).ids) == b"user:Hi\n"


@pytest.mark.parametrize(
    ("content", "told"), [("Well.", "[THINK]Hm.[/THINK]Well."), (None, "[THINK]Hm.[/THINK]")]
)
def test_an_earlier_thought_as_a_part_of_the_content(content, told):
    class Words:  # as Mistral's
        bos_token_id = eos_token_id = None
        chat_template = """{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}
{%- for part in m.content %}{% if part['type'] == 'thinking' %}[THINK]{{ part['thinking'] }}[/THINK]{% else %}
{{- part['text'] }}{% endif %}{% endfor %}{% endif %}|{% endfor %}"""

        def encode(self, text, **_):
            return list(text.encode())

        def decode(self, ids, **_):
            return bytes(ids).decode()

        def apply_chat_template(self, messages, *, tokenize, **variables):
            return compiled(self.chat_template).render(messages=messages, **variables)

    prompts = Prompts(Words(), vocabulary=256, context=None, path="model", backend="x")
    prompts.prove()
    said = {"role": "assistant", "content": content, "reasoning_content": "Hm."}
    talk = [{"role": "user", "content": "a"}, said, {"role": "user", "content": "b"}]
    assert bytes(prompts.encode(talk)).decode() == f"a|{told}|b|"


def test_time_limits_hold_in_threads(monkeypatch):
    monkeypatch.setattr("memserve.tokens.template.SECONDS", 0.05)

    def endless():
        return [None for _ in iter(int, 1)]

    def ended(_):
        with pytest.raises(TimeoutError, match="more than"):
            limited(endless)
        return sum(_same(one) for one in range(20_000))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ended, range(16))) == [sum(range(20_000))] * 16


def _same(one):
    return one


def test_nothing_is_left_behind_by_a_time_limit():
    """In a process of its own with a limit: what is left of an exception hangs a profiler for ever."""
    program = """
import sys
from memserve.tokens import template
template.SECONDS = 0.01
for _ in range(20):
    try:
        template.limited(lambda: [None for _ in iter(int, 1)])
    except TimeoutError:
        continue
    sys.exit("it had no end")
seen = []
sys.setprofile(lambda *event: seen.append(event))
sorted([2, 1])
sys.setprofile(None)
print(len(seen))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20
