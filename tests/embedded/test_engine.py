"""The embedded default on its real engine: text, vectors, and the way its weights come."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

import memserve
from memserve.errors import Closed, InvalidInput

pytestmark = [pytest.mark.engine("embedded"), pytest.mark.filterwarnings("ignore")]
TEXTS = ["a green river", "seven lamps under the window", "a green river", "x"]


@pytest.fixture(scope="module")
def generator():
    with memserve.generator() as held:
        yield held


@pytest.fixture(scope="module")
def embedder():
    with memserve.embedder() as held:
        yield held


def test_it_knows_the_capital_of_france(generator) -> None:
    assert "Paris" in generator.generate("What is the capital of France?", max_tokens=16).text


def test_neighbours_do_not_change_an_answer(generator) -> None:
    """The graph computes in float32; prompts of unlike length share a pass, padded on the left."""
    prompts = ["Name a colour.", "Count to five. " * 40, "Where does the sun rise?"]
    together = [one.token_ids for one in generator.generate(prompts, max_tokens=12)]
    assert together == [generator.generate(one, max_tokens=12).token_ids for one in prompts]


def test_a_sum_of_steps_is_the_score(generator) -> None:
    whole = generator.score([("The river runs", " past the old bridge")])[0]
    told = generator.generate(memserve.Raw("The river runs"), max_tokens=3, logprobs=1)
    again = generator.score([("The river runs", told.text)])[0]
    assert whole.tokens > 2
    assert again.logprob == pytest.approx(sum(one.logprob for one in told.logprobs), abs=1e-2)


def test_ids_read_back_and_a_text_is_the_sum_of_its_windows(generator) -> None:
    for text in ("The café runs\n\n  past 12 bridges \u2603 \U0001f30a", " ", "<|im_start|>user", ""):
        assert generator.decode(generator.encode(text)) == text
    text = "The river runs past an old stone bridge."
    ids, bos = generator.encode(text), generator.encode("<|im_start|>")
    pairs = [(bos, ids[:4]), (ids[3:4], ids[4:8]), (ids[4:8], ids[8:])]
    assert len(ids) == 9
    score = generator.score_text([text], window=4)[0]
    assert score.tokens == 9
    assert score.logprob == pytest.approx(sum(one.logprob for one in generator.score(pairs)), abs=1e-3)
    whole = generator.score_text([text, ""])
    assert whole[0].logprob == pytest.approx(generator.score([("", text)])[0].logprob, abs=1e-3)
    assert (whole[1].logprob, whole[1].tokens) == (0.0, 0)


TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
    "additionalProperties": False}}}  # fmt: skip


def test_an_answer_keeps_its_schema_regex_or_choices(generator) -> None:
    schema = {"type": "object",
              "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer"}},
              "required": ["name", "age"], "additionalProperties": False}  # fmt: skip
    assert set(generator.generate("A person, please.", schema=schema, max_tokens=60).parsed) == {
        "name",
        "age",
    }
    assert generator.generate("A year?", regex="[0-9]{4}").text.isdigit()
    assert generator.generate("A colour?", choices=["red", "blue"]).text in ("red", "blue")
    with pytest.raises(InvalidInput, match=r"enforced: .*unclosed group"):
        generator.generate("x", regex="(")


@pytest.mark.parametrize("only", ["a/b", "x|y(", 'a\n"b"', "[x]", "# & ", "\\d", "é😀", "x\u2028y"])
def test_a_choice_is_said_as_it_is_written(generator, only) -> None:
    assert generator.generate("x", choices=[only]).text == only


def test_of_thousands_of_choices_one_comes(generator) -> None:
    choices = [f"c{number}" for number in range(5000)]
    assert generator.generate("x", choices=choices).text in choices


@pytest.mark.parametrize(("regex", "wanted"), [
    (r"\d{4}", "[0-9]{4}"), (r"[\d.]{4}", "[0-9.]{4}"),
    (r"a\/\\d", r"a/\\d"), ("a/b", "a/b"), ("a\nb", "a\nb"),
])  # fmt: skip
def test_a_regex_is_read_as_python_writes_it(generator, regex, wanted) -> None:
    """Digits are those of ASCII, as on other engines: a small model found others."""
    assert re.fullmatch(wanted, generator.generate("A year?", regex=regex).text)


def test_a_tool_is_called_and_its_result_read(generator) -> None:
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = generator.generate(asked, tools=[TOOL], tool_choice="required", max_tokens=90)
    assert (answer.finish_reason, answer.text) == ("tool_calls", None)
    assert json.loads(answer.tool_calls[0].arguments) == {"city": "Paris"}
    *_, last = generator.stream(asked, tools=[TOOL], tool_choice="required", max_tokens=90)
    assert last.tool_calls == answer.tool_calls
    call = answer.tool_calls[0]
    asked += [{"role": "assistant", "content": None, "tool_calls": [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}]  # fmt: skip
    assert "21" in generator.generate(asked, tools=[TOOL], max_tokens=40).text


def test_a_role_that_nobody_knows_is_refused(generator) -> None:
    with pytest.raises(InvalidInput, match="unknown role robot"):
        generator.generate([{"role": "robot", "content": "hi"}], max_tokens=1)


def test_without_tools_the_files_own_template_writes_alone(generator) -> None:
    asked = [{"role": "user", "content": "It's <b>"}, {"role": "assistant", "content": "Yes."},
             {"role": "user", "content": "Why?"}]  # fmt: skip
    tokenizer = generator._engine._prompts.tokenizer
    own = tokenizer.chat_template.partition("{% for message in messages %}{% if loop.first")
    plain = ImmutableSandboxedEnvironment().from_string("".join(own[1:]))
    wanted = plain.render(messages=asked, add_generation_prompt=True)
    assert generator.decode(generator._engine._prompts.encode(asked)) == wanted


def test_documents_are_ranked_by_their_vectors() -> None:
    with memserve.reranker() as reranker:
        found = reranker.rerank("which river is it", ["an apple", "the river Rhine", "seven lamps"])
        assert max(found.scores) == found.scores[1]
        assert reranker.rerank("x", []).scores == ()


def test_vectors_are_units_of_384_and_alike_for_like_texts(embedder) -> None:
    vectors = embedder.embed(TEXTS).vectors
    assert (vectors.shape, vectors.dtype) == ((4, 384), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-6)
    near, far = vectors[0] @ embedder.embed("a river that is green").vectors[0], vectors[0] @ vectors[1]
    assert near > 0.8 > 0.4 > far


def test_company_does_not_move_a_vector(embedder) -> None:
    alone = np.concatenate([embedder.embed(text).vectors for text in TEXTS])
    assert embedder.embed(TEXTS).vectors == pytest.approx(alone, abs=2e-6)


def test_a_text_that_is_cut_is_told(embedder, caplog) -> None:
    assert embedder.embed(["a " * 100, "a " * 300]).usage.prompt_tokens == 102 + 256
    assert "1 of 2 texts are longer than 256 tokens" in caplog.text


@pytest.mark.parametrize("dimensions", [0, -1, 385])
def test_dimensions_that_are_not_there_are_refused(embedder, dimensions: int) -> None:
    with pytest.raises(InvalidInput, match="dimensions"):
        embedder.embed("x", dimensions=dimensions)


def test_threads_of_the_caller_take_turns(generator) -> None:
    found: list[tuple[int, ...]] = []
    wanted = generator.generate("Name a colour.", max_tokens=8).token_ids

    def ask() -> None:
        found.append(generator.generate("Name a colour.", max_tokens=8).token_ids)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for one in askers:
        one.start()
    for one in askers:
        one.join(60)
    assert found == [wanted] * 4


def test_after_close_it_says_so() -> None:
    held = memserve.generator()
    held.close()
    held.close()
    with pytest.raises(Closed):
        held.generate("x")


def test_a_process_of_its_own_answers_within_six_seconds_of_cpu() -> None:
    """Weights are there; the figure is of the issue's table, in CPU time since machines are shared."""
    code = ("import time, memserve\nwith memserve.generator() as g:\n"
            " next(iter(g.stream('Hello', max_tokens=2)))\nprint(time.process_time())")  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert float(done.stdout) < 6.0, f"{done.stdout} s of CPU, {time.monotonic() - began:.1f} s in all"


async def test_streams_and_answers_that_come_together_are_decoded_together(generator) -> None:
    """Each says what it says alone; a slow one holds nobody up; who leaves frees the place."""
    alone = generator.generate("Count to three.", max_tokens=8).text

    async def read(most: int) -> str:
        return "".join([one.text async for one in generator.astream("Count to three.", max_tokens=most)])

    long = asyncio.ensure_future(generator.agenerate("Tell a long story.", max_tokens=1500))
    await asyncio.sleep(0)
    texts = await asyncio.gather(*(read(8) for _ in range(6)), generator.agenerate("Hi", max_tokens=2))
    assert set(texts[:6]) == {alone}
    long.cancel()
    assert (await generator.agenerate("Count to three.", max_tokens=8)).text == alone
